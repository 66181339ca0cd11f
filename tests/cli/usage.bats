#!/usr/bin/env bats
# What `ucow litmus` refuses: options, paths and files that make no sense. Nothing runs then, and the status is 2.

# `run` sets stderr.
# shellcheck disable=SC2154
load common

refused() {
	[ "$status" -eq 2 ]
	[ -z "$output" ]
	[ -n "$stderr" ]
}

@test "no path" {
	ucow litmus
	refused
}

@test "values that options do not have" {
	holding good
	for bad in --on=engin --policy=refcounts --policy= --fork=slow --fork=default --repeat=0 --repeat=x --repeat=-1 \
		--repeat=99999999999999999999 --timeout=0 --timeout=1s --seed=-1 --seed= --jason --json=yes; do
		ucow litmus "$bad" "$BATS_TEST_TMPDIR"
		refused
	done
}

@test "an unknown policy is answered with the ones there are" {
	holding good
	ucow litmus --policy nonsense "$BATS_TEST_TMPDIR"
	refused
	[[ $stderr == *nonsense* && $stderr == *exclusive* && $stderr == *dontcopy-pinned* ]]
}

@test "--json and --tap exclude each other" {
	holding good
	ucow litmus --json --tap "$BATS_TEST_TMPDIR"
	refused
}

@test "a fork mode that the policy does not have" {
	holding good
	for mode in tables lazy; do
		ucow litmus --on engine --policy refcount --fork "$mode" "$BATS_TEST_TMPDIR"
		refused
		[[ $stderr == *"$mode"* ]]
	done
}

@test "a missing path" {
	ucow litmus "$BATS_TEST_TMPDIR/nowhere"
	refused
	[[ $stderr == "$BATS_TEST_TMPDIR/nowhere: "* ]]
}

@test "a missing path beside a good one: nothing runs" {
	holding good
	ucow litmus "$BATS_TEST_TMPDIR/good.litmus" "$BATS_TEST_TMPDIR/nowhere"
	refused
}

@test "a folder without litmus files" {
	mkdir "$BATS_TEST_TMPDIR/empty"
	touch "$BATS_TEST_TMPDIR/empty/notes.txt" "$BATS_TEST_TMPDIR/empty/.hidden.litmus"
	ucow litmus "$BATS_TEST_TMPDIR/empty"
	refused
	[[ $stderr == *"$BATS_TEST_TMPDIR/empty: "* ]]
}

@test "a file that cannot be read" {
	mkdir "$BATS_TEST_TMPDIR/t" && ln -s nowhere "$BATS_TEST_TMPDIR/t/dangling.litmus"
	ucow litmus "$BATS_TEST_TMPDIR/t"
	refused
	[[ $stderr == "$BATS_TEST_TMPDIR/t/dangling.litmus: "* ]]
}

@test "a malformed file: path, line, column, text" {
	litmus bad <<-'END'
		title: a word that is none
		A map buf 1
		A wobble buf "x"
	END
	ucow litmus "$BATS_TEST_TMPDIR/bad.litmus"
	refused
	[[ $stderr =~ ^$BATS_TEST_TMPDIR/bad.litmus:3:[0-9]+:\ .*wobble ]]
}

@test "every malformed file is reported, and the good ones do not run" {
	holding a-good
	litmus b-bad <<<'title: no statement is called so
A dance'
	litmus c/bad <<<'colour: red'
	: >"$BATS_TEST_TMPDIR/d-empty.litmus"
	printf 'title: a byte that is no text \xff\n' >"$BATS_TEST_TMPDIR/e-binary.litmus"
	ucow litmus "$BATS_TEST_TMPDIR"
	refused
	grep -qE '/b-bad\.litmus:2:[0-9]+: ' <<<"$stderr"
	grep -qE '/c/bad\.litmus:1:[0-9]+: ' <<<"$stderr"
	grep -qE '/d-empty\.litmus:[0-9]+:[0-9]+: ' <<<"$stderr"
	grep -qE '/e-binary\.litmus:1:[0-9]+: ' <<<"$stderr"
	[ "$(grep -c litmus: <<<"$stderr")" -eq 4 ]
}

@test "output that cannot be written is not success" {
	[ -w /dev/full ] || skip "no /dev/full"
	holding good
	for format in --json --tap; do
		run bash -c '"$1" litmus --on engine "$2" "$3" >/dev/full' - "$UCOW" "$format" "$BATS_TEST_TMPDIR"
		[ "$status" -eq 2 ]
	done
}
