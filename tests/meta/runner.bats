#!/usr/bin/env bats
# The litmus runner sees a scenario that does not do what its file says, in either direction.

bats_require_minimum_version 1.5.0

# scenario BREAKS: what holds under `exclusive` and fails under `refcount`
scenario() {
	cat >"$BATS_TEST_TMPDIR/t.litmus" <<-END
		title:   a write pin loses its page to a fork under refcount
		catches: a runner that does not compare what it saw with what the file says
		$1

		A map buf 1
		A write buf "old"
		A pin buf w -> p
		A fork B
		A write buf "new"
		check p reads "new"
	END
	run "$UCOW" litmus --on engine --fork eager --policy "$2" "$BATS_TEST_TMPDIR/t.litmus"
	echo "$output"
}

@test "listed and breaks: as expected" {
	scenario 'breaks: refcount' refcount
	[ "$status" -eq 0 ]
}

@test "breaks and not listed: unexpected" {
	scenario '' refcount
	[ "$status" -eq 1 ]
}

@test "listed and does not break: unexpected" {
	scenario 'breaks: exclusive' exclusive
	[ "$status" -eq 1 ]
}

@test "not listed and does not break: as expected" {
	scenario '' exclusive
	[ "$status" -eq 0 ]
}

@test "a false check is seen" {
	sed 's/check p reads "new"/check p reads "other"/' <<-'END' >"$BATS_TEST_TMPDIR/t.litmus"
		title: a check that cannot hold
		A map buf 1
		A write buf "new"
		A pin buf w -> p
		check p reads "new"
	END
	run -1 "$UCOW" litmus --on engine "$BATS_TEST_TMPDIR/t.litmus"
}
