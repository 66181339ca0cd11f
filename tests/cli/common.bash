# What the CLI tests share. The command is $UCOW, the corpus $UCOW_CORPUS; both default to this tree.
# shellcheck shell=bash disable=SC2154

bats_require_minimum_version 1.5.0

root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
UCOW=${UCOW:-$root/build/debug/ucow}
UCOW_CORPUS=${UCOW_CORPUS:-$root/litmus}

# litmus NAME: make NAME.litmus in the test's folder out of standard input
litmus() {
	mkdir -p "$(dirname "$BATS_TEST_TMPDIR/$1")"
	cat >"$BATS_TEST_TMPDIR/$1.litmus"
}

# Holds everywhere.
holding() {
	litmus "$1" <<-'END'
		title: fork, then each side writes
		A map buf 2
		A write buf[0] "old!"
		A fork B
		A write buf[0] "new!"
		check B reads buf[0] "old!"
		check A reads buf[0] "new!"
		check A reads buf[1] zero
	END
}

# Breaks under refcount: line 7 shows "old!" instead of "new!". $2: a header line.
losing() {
	litmus "$1" <<-END
		title: a write pin and a fork
		$2
		A map buf 1
		A write buf "old!"
		A pin buf w -> p
		A fork B
		A write buf "new!"
		check p reads "new!"
	END
}

# A check that holds nowhere, in line 4.
failing() {
	litmus "$1" <<-'END'
		title: a check that cannot hold
		A map buf 1
		A write buf "this"
		check A reads buf "that"
	END
}

needing() {
	litmus "$1" <<-END
		title: something that the engine does not have
		needs: $2
		A map buf 1
		check A reads buf zero
	END
}

# ucow ARGUMENT...: with standard output and error apart
ucow() {
	run --separate-stderr "$UCOW" "$@"
	echo "status $status"
	echo "stdout: $output"
	echo "stderr: ${stderr:-}"
}

need_json() {
	command -v jq >/dev/null || skip "no jq"
	! "$UCOW" litmus --json 2>&1 | grep -q "without jansson" || skip "built without jansson"
}
