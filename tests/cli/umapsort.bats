#!/usr/bin/env bats
# The example that sorts a file larger than the memory for it, against sort(1).

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
}

# Lines of 17 bytes, 8 MiB and more of them, of $1 random bytes: memory comes in units of 2 MiB, and gets a quarter.
make_lines() {
	od -v -An -tx8 -w8 -N "$1" /dev/urandom | tr -d ' '
}

@test "a file of four times the memory" {
	make_lines 4000000 >lines
	[ "$(wc -c <lines)" -gt $((8 << 20)) ]
	sort lines >expected
	"$UMAPSORT" lines
	cmp lines expected
}

@test "many equal lines, and lines that cross pages" {
	make_lines 4000000 | sed 's/^\(...\).*/\1 equal in all but the start/' >lines
	sort lines >expected
	"$UMAPSORT" lines
	cmp lines expected
}

@test "a file that is in order stays so" {
	make_lines 4000000 | sort >lines
	cp lines expected
	"$UMAPSORT" lines
	cmp lines expected
}

@test "small and empty files" {
	: >lines
	"$UMAPSORT" lines
	[ ! -s lines ]
	printf 'b\na\n' >lines
	"$UMAPSORT" lines
	[ "$(cat lines)" = "a
b" ]
}

@test "lines of different lengths are refused" {
	printf 'a\nbcd\n' >lines
	run "$UMAPSORT" lines
	[ "$status" -eq 1 ]
	[ "$(cat lines)" = "a
bcd" ]
}

@test "read pins that break copy-on-write break the pager" {
	make_lines 4000000 >lines
	run "$UMAPSORT" -p force-cow lines
	[ "$status" -eq 3 ]
	"$UMAPSORT" -p mapcount lines
	sort -c lines
}
