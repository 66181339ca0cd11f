#!/usr/bin/env bats
# Reports: the matrix, JSON and TAP.

# `run` sets stderr.
# shellcheck disable=SC2154
load common

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
}

policies="mapcount force-cow refcount refcount-pin pin-breaks-cow reuse-pinned dontcopy-pinned exclusive"

@test "matrix: a row a test, a column a policy, in the order of history" {
	holding t/good
	losing t/lost "breaks: mapcount force-cow refcount pin-breaks-cow reuse-pinned"
	ucow litmus --on engine --fork eager --policy all t
	[ "$status" -eq 0 ]
	heads=$(sed -n '1,8p' <<<"$output" | sed 's/^[ |]*//; s/ .*//' | tr '\n' ' ')
	[ "$heads" = "$policies " ]
	[[ $output == *$'\nt/\n'* ]]
	grep -qE '^  good +\.  \.  \.  \.    \.  \.  \.    \.$' <<<"$output"
	grep -qE '^  lost +x  x  x  \.    x  x  \.    \.$' <<<"$output"
	grep -qE ' refcount +breaks 1 of 2$' <<<"$output"
	grep -qE ' exclusive +breaks 0 of 2$' <<<"$output"
	[[ $output == *"all as the files say" ]]
}

@test "matrix: what is not as the file says stands out and is told below" {
	losing t/lost ""
	ucow litmus --on engine --fork eager --policy all t
	[ "$status" -eq 1 ]
	grep -qE '^  lost +x! x! x! \.' <<<"$output"
	grep -qF '! break  refcount         t/lost.litmus:8: check p reads "new!": saw "old!"' <<<"$output"
	[[ $output == *"not as the files say" ]]
}

@test "matrix: no line is wider than 120 columns, whatever the names" {
	name=$(printf 'long-%.0s' {1..30})
	holding "t/$name"
	ucow litmus --policy all t
	[ "$status" -eq 0 ]
	run ! grep -E '^.{121,}' <<<"$output"
}

@test "matrix: --quiet leaves only what is unexpected" {
	holding t/good
	ucow litmus --quiet --on engine --policy all t
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	failing t/bad
	ucow litmus --quiet --on engine --policy all t
	[ "$status" -eq 1 ]
	[ "${#lines[@]}" -eq 8 ]
}

@test "matrix: why tests and checks were left out" {
	needing t/absent hugetlb
	litmus t/flags <<-'END'
		title: fresh memory is exclusive
		A map buf 1
		A write buf "x"
		check A reads buf "x"
		check A buf is exclusive
	END
	ucow litmus --on engine --fork eager --policy all t
	[ "$status" -eq 0 ]
	grep -qE '^  absent +-  -  -  -    -  -  -    -' <<<"$output"
	grep -qE '^  flags +o  o  o  o    o  o  o    \.' <<<"$output"
	grep -qE '^ +1 test +engine: hugetlb not built yet$' <<<"$output"
	grep -qE '^ +1 test +engine: the older policies know no `exclusive` \(7 checks\)$' <<<"$output"
}

@test "json: one object, as documented" {
	need_json
	holding t/good
	losing t/lost "breaks: refcount"
	failing t/bad
	needing t/absent hugetlb
	ucow litmus --on engine --fork eager --policy all --json t
	[ "$status" -eq 1 ]
	[ "$(jq -s length <<<"$output")" -eq 1 ]
	jq -e '.version == 1 and (.results | length) == 32' <<<"$output"
	jq -e '[.results[] | keys == ["check", "expected", "file", "fork", "line", "on", "policy", "reason", "saw",
		"skipped", "skipped_checks", "test", "verdict"]] | all' <<<"$output"
	jq -e '.results[] | select(.test == "bad" and .policy == "exclusive") |
		. == {test: "bad", file: "t/bad.litmus", on: "engine", policy: "exclusive", fork: "eager",
		verdict: "break", expected: false, line: 4, check: "check A reads buf \"that\"", saw: "\"this\"",
		reason: "", skipped_checks: 0, skipped: []}' <<<"$output"
	jq -e '.results[] | select(.test == "absent" and .policy == "mapcount") |
		.verdict == "skip" and .expected and .reason == "engine: hugetlb not built yet" and .line == 0' <<<"$output"
	jq -e '.results as $r | .summary == {
		pass: [$r[] | select(.verdict == "pass")] | length,
		break: [$r[] | select(.verdict == "break")] | length,
		skip: [$r[] | select(.verdict == "skip")] | length,
		error: [$r[] | select(.verdict == "error")] | length,
		unexpected: [$r[] | select(.expected | not)] | length}' <<<"$output"
}

@test "json: the kernel has neither policy nor fork mode" {
	need_json
	holding good
	ucow litmus --on both --json good.litmus
	[ "$status" -eq 0 ]
	[ -z "$stderr" ]
	jq -e '[.results[] | .on] == ["engine", "kernel"]' <<<"$output"
	jq -e '.results[1] | .policy == null and .fork == null' <<<"$output"
}

@test "json: a file name that is no UTF-8 does not spoil it" {
	need_json
	holding good
	mv good.litmus $'g\xffod.litmus'
	ucow litmus --on engine --json $'g\xffod.litmus'
	[ "$status" -eq 0 ]
	jq -e '.results[0].test == "g?od"' <<<"$output"
}

@test "tap: a plan, and a point for each test in each column" {
	holding t/good
	losing t/lost "breaks: refcount"
	failing t/bad
	needing t/absent hugetlb
	ucow litmus --on engine --policy refcount --tap t
	[ "$status" -eq 1 ]
	[ "$output" = 'TAP version 13
1..4
ok 1 - refcount: absent # SKIP engine: hugetlb not built yet
not ok 2 - refcount: bad
# t/bad.litmus:4: check A reads buf "that"
# saw "this"
ok 3 - refcount: good
ok 4 - refcount: lost
# breaks, as `breaks:` says
# t/lost.litmus:8: check p reads "new!"
# saw "old!"' ]
}

@test "tap: a name with a # makes no directive" {
	holding 'good # SKIP nothing'
	ucow litmus --on engine --tap 'good # SKIP nothing.litmus'
	[ "$status" -eq 0 ]
	[ "${lines[2]}" = 'ok 1 - exclusive: good \# SKIP nothing' ]
}

@test "without --on: both columns, or a word on stderr why not" {
	holding good
	ucow litmus --tap good.litmus
	[ "$status" -eq 0 ]
	if [ "${lines[1]}" = 1..2 ]; then
		[ "${lines[-1]}" = "ok 2 - kernel: good" ]
	else
		[[ $stderr == *"engine only"* ]]
	fi
}
