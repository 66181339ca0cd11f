#!/usr/bin/env bats
# The checking scripts see what they are for: each gets a small tree with one fault.

bats_require_minimum_version 1.5.0

setup() {
	scripts=$BATS_TEST_DIRNAME/../../scripts
	tree=$BATS_TEST_TMPDIR
	mkdir -p "$tree"/src/{base,frame,table,space,litmus,cli} "$tree"/{include/ucow,tests,litmus,docs,man}
	printf '#include "base/base.h"\n' >"$tree/src/frame/frame.c"
	: >"$tree/src/base/base.h"
}

@test "layers: a clean tree passes" {
	printf '#include "litmus/run.h"\n#include <ucow/ucow.h>\n' >"$tree/src/cli/main.c"
	printf '/* PTE_DIRTY in a comment,\n * PTE_DIRTY on its second line */\nint pte; // PTE_DIRTY\n' >"$tree/src/space/vma.c"
	printf '#define PTE_DIRTY 1\n' >"$tree/src/table/entry.h"
	run -0 "$scripts/check-layers" "$tree"
	[ -z "$output" ]
}

@test "layers: a lower floor must not include a higher one" {
	printf '\n#include "space/mm.h"\n' >"$tree/src/frame/frame.c"
	run ! "$scripts/check-layers" "$tree"
	[[ $output == *"src/frame/frame.c:2: frame includes space/mm.h"* ]]
}

@test "layers: litmus and cli use public headers only" {
	printf '#include "base/base.h"\n' >"$tree/src/litmus/run.c"
	run ! "$scripts/check-layers" "$tree"
	[[ $output == *"src/litmus/run.c:1:"*"public headers only"* ]]
	printf '#include "cli/cli.h"\n' >"$tree/src/litmus/run.c"
	run ! "$scripts/check-layers" "$tree"
}

@test "layers: entry bits stay in table/" {
	printf 'int f(int v)\n{\n\treturn v == PTE_KIND_ANON;\n}\n' >"$tree/src/space/mm.c"
	run -0 "$scripts/check-layers" "$tree"
	printf 'int f(struct pte pte)\n{\n\treturn pte.v;\n}\n' >"$tree/src/space/mm.c"
	run ! "$scripts/check-layers" "$tree"
	printf 'int f(int v)\n{\n\treturn v & PTE_DIRTY;\n}\n' >"$tree/src/space/mm.c"
	run ! "$scripts/check-layers" "$tree"
	[[ $output == *"src/space/mm.c:3: entry bits"* ]]
}

@test "layers: a folder outside the order is refused" {
	mkdir "$tree/src/misc"
	: >"$tree/src/misc/misc.c"
	echo >"$tree/src/misc/misc.c"
	run ! "$scripts/check-layers" "$tree"
	[[ $output == *"no place in the order"* ]]
}

invariants() {
	printf '| id | sentence | checker | test |\n|---|---|---|---|\n' >"$tree/docs/invariants.md"
	printf '%s\n' "$@" >>"$tree/docs/invariants.md"
	printf 'int check_frames(void)\n{ /* [INV-FRAME-1] */ }\n' >"$tree/src/frame/check.c"
	printf 'TEST(frames_balance)\n' >"$tree/tests/frames.c"
	run "$scripts/check-invariants" "$tree"
	echo "$output"
}

@test "invariants: a full row passes" {
	invariants '| FRAME-1 | recounted | `check_frames` | `frames_balance` |'
	[ "$status" -eq 0 ]
}

@test "invariants: a cited id without a row fails" {
	invariants '| VMA-1 | sorted | `check_frames` | `frames_balance` |'
	[ "$status" -ne 0 ]
	[[ $output == *"INV-FRAME-1 is cited but has no row"* ]]
}

@test "invariants: a row without checker or test fails" {
	invariants '| FRAME-1 | recounted | | `frames_balance` |'
	[ "$status" -ne 0 ]
	[[ $output == *"names no checker"* ]]
	invariants '| FRAME-1 | recounted | `check_frames` | none |'
	[ "$status" -ne 0 ]
	[[ $output == *"names no test"* ]]
}

@test "invariants: names that do not exist fail" {
	invariants '| FRAME-1 | recounted | `check_frame` | `frames_balance` |'
	[ "$status" -ne 0 ]
	[[ $output == *"no function called check_frame "* ]]
	invariants '| FRAME-1 | recounted | `check_frames` | `frames_balanced` |'
	[ "$status" -ne 0 ]
	[[ $output == *"no test called frames_balanced"* ]]
}

@test "invariants: a table that cannot be read fails" {
	printf 'nothing here\n' >"$tree/docs/invariants.md"
	run ! "$scripts/check-invariants" "$tree"
}

@test "headers: one that needs another first fails" {
	printf 'static inline size_t f(void) { return 0; }\n' >"$tree/include/ucow/bad.h"
	run -1 "$scripts/check-headers" "$tree"
	[[ $output == *"ucow/bad.h is not clean as c17"* ]]
}

@test "docs: a dead link and a dead path fail" {
	printf 'int x;\n' >"$tree/include/ucow/x.h"
	printf '.Dd 1\n' >"$tree/man/x.3"
	printf '[x](docs/nothing.md) `src/frame/frame.c` `src/frame/nothing.c`\n' >"$tree/README.md"
	printf '[y](../README.md)\n' >"$tree/docs/y.md"
	run ! "$scripts/check-docs" "$tree"
	[[ $output == *"README.md: link to docs/nothing.md"* ]]
	[[ $output == *"src/frame/nothing.c does not exist"* ]]
	[[ $output != *"src/frame/frame.c does not"* ]]
	[[ $output != *"docs/y.md"* ]]
}

@test "sources: one that the build does not know fails" {
	for list in src/meson.build tests/meson.build examples/meson.build man/meson.build meson.build; do
		mkdir -p "$(dirname "$tree/$list")"
		printf "'frame/frame.c'\n" >"$tree/$list"
	done
	run -0 "$scripts/check-sources" "$tree"
	: >"$tree/src/table/walk.c"
	run -1 "$scripts/check-sources" "$tree"
	[ "$output" = "src/meson.build does not name table/walk.c" ]
}

@test "readme-example: prints the block with a main, fails without one" {
	printf '```c\nint x;\n```\n\n```c\nint main(void)\n{\n}\n```\n' >"$tree/README.md"
	run -0 "$scripts/readme-example" "$tree/README.md"
	[ "$output" = $'int main(void)\n{\n}' ]
	printf '```c\nint x;\n```\n' >"$tree/README.md"
	run -1 "$scripts/readme-example" "$tree/README.md"
}
