#!/usr/bin/env bats
# What `ucow explore` finds, what it prints, its exit status, and that a finding can be run again.

# `run` sets stderr.
# shellcheck disable=SC2154
load common

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
}

# A pin and a fork at once: breaks under policies that do not keep a pinned page. $2: a header line.
racing() {
	litmus "$1" <<-END
		title: a write pin and a fork at the same time
		$2
		A map buf 1
		A write buf "old!"
		parallel
		lane
		A fork B
		lane
		A pin buf w fast -> p
		end
		A write buf "new!"
		check p reads "new!"
	END
}

# What two writers leave is chance: one of the orders fails the check, in line 10.
chancy() {
	litmus "$1" <<-'END'
		title: two threads write one page
		A map buf 1
		A write buf "old!"
		parallel
		lane
		A write buf "left"
		lane
		A write buf "rite"
		end
		check A reads buf "rite"
	END
}

refused() {
	[ "$status" -eq 2 ]
	[ -z "$output" ]
	[ -n "$stderr" ]
}

json() {
	jq -e "$1" <<<"$output" >/dev/null
}

needs_json() {
	command -v jq >/dev/null || skip "jq is missing"
	chancy probe
	ucow explore --json probe.litmus
	[[ $stderr != *jansson* ]] || skip "built without jansson"
}

@test "today's rules keep a pinned page in every interleaving and fork mode" {
	racing race "breaks: refcount"
	ucow explore --full --fork all race.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^"  pass   exclusive/lazy".*" interleavings, all ".*race.litmus ]]
	[[ ${lines[1]} == *exclusive/tables* && ${lines[2]} == *exclusive/eager* ]]
	[[ $output == *"3 runs: 3 pass, 0 break, 0 skip, 0 error;"*"all as the files say" ]]
}

@test "an older policy loses it, which is found and expected" {
	racing race "breaks: refcount"
	ucow explore --full --policy refcount race.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[0]} == "  break  refcount/eager"* ]]
	[[ $output == *'race.litmus:12: check p reads "new!"'*'saw "old!"'* ]]
	[[ $output == *"lane 1"*"lane 2"* ]]
}

@test "a break that the file does not list, and a listed one that is not there" {
	racing race ""
	ucow explore --full --policy refcount race.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[0]} == "! break  refcount/eager"* ]]
	racing race "breaks: exclusive"
	ucow explore --full race.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[0]} == "! pass   exclusive/lazy"* ]]
}

@test "one order of two stores fails a check, whichever way is asked" {
	chancy two
	for how in --full --bound=0 --bound=1 --bound=2; do
		ucow explore "$how" --fork eager two.litmus
		[ "$status" -eq 1 ]
		[[ $output == *'two.litmus:10: check A reads buf "rite"'*'saw "left"'* ]]
	done
	ucow explore --memory tso --full --fork eager two.litmus
	[ "$status" -eq 1 ]
}

@test "a test without lanes is one interleaving" {
	holding plain
	ucow explore --full --fork eager plain.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ " 1 interleaving" ]]
	failing bad
	ucow explore --fork eager bad.litmus
	[ "$status" -eq 1 ]
	[[ $output == *'bad.litmus:4: check A reads buf "that"'* ]]
}

@test "--max ends the search, which is then not complete" {
	racing race "breaks: refcount"
	ucow explore --full --max 3 race.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[0]} == *" 3 interleavings, not all"* ]]
}

@test "lanes that wait for each other for ever are found" {
	litmus locks <<-'END'
		title: two scanners lock two pages crosswise
		A map buf 2
		A write buf "init"
		parallel
		lane
		A lock buf[0] -> a
		A lock buf[1] -> b
		unlock a
		unlock b
		lane
		A lock buf[1] -> c
		A lock buf[0] -> d
		unlock c
		unlock d
		end
		check A reads buf "init"
	END
	ucow explore --full --fork eager locks.litmus
	[ "$status" -eq 1 ]
	[[ $output == *"locks.litmus:7:"*"deadlock"* ]]
}

@test "json: what was asked, what was found" {
	needs_json
	chancy two
	ucow explore --json --full --fork eager two.litmus
	[ "$status" -eq 1 ]
	json '.version == 1 and (.results | length) == 1'
	json '.results[0] | .test == "two" and .policy == "exclusive" and .fork == "eager" and .verdict == "break" and
		.expected == false and .complete == false and .interleavings >= 1 and .line == 10'
	json '.results[0].schedule | length > 2 and all(.[]; (.lane | . == 0 or . == 1) and (.statement | . == 6 or . == 8)
		and (.step | type == "string"))'
	racing race ""
	ucow explore --json --full race.litmus
	[ "$status" -eq 0 ]
	json '.results[0] | .verdict == "pass" and .complete and .interleavings > 10 and .schedule == []'
}

@test "a finding is run again, exactly, as often as one likes" {
	needs_json
	racing race ""
	"$UCOW" explore --json --full --policy refcount race.litmus >finding.json || [ $? -eq 1 ]
	jq '.results[0]' finding.json >one.json
	for file in finding.json one.json; do
		ucow explore --json --replay "$file"
		[ "$status" -eq 1 ]
		json '.results[0] | .verdict == "break" and .policy == "refcount" and .line == 12'
		[ "$(jq -c '[.results[0].schedule[] | del(.saw)]' <<<"$output")" = \
			"$(jq -c '[.results[0].schedule[] | del(.saw)]' finding.json)" ]
	done
	ucow explore --replay finding.json
	[ "$status" -eq 1 ]
	[[ $output == *"lane 1"*"lane 2"* ]]
}

@test "buffers: a finding under tso is run again" {
	needs_json
	chancy two
	"$UCOW" explore --json --full --memory tso --fork eager two.litmus >finding.json || [ $? -eq 1 ]
	jq -e '.results[0] | .memory == "tso" and .verdict == "break" and any(.schedule[]; .flush)' finding.json
	ucow explore --json --replay finding.json
	[ "$status" -eq 1 ]
	json '.results[0] | .verdict == "break" and .line == 10'
}

@test "replaying what is no finding" {
	needs_json
	racing race ""
	echo '{"version":1' >broken.json
	echo '{"version":1,"results":[]}' >empty.json
	for file in broken.json empty.json missing.json; do
		ucow explore --replay "$file"
		refused
	done
	# A schedule with a step that no lane comes to.
	chancy two
	"$UCOW" explore --json --full --fork eager two.litmus >finding.json || [ $? -eq 1 ]
	jq '.results[0].schedule[-1].at = 999999' finding.json >other.json
	ucow explore --replay other.json
	[ "$status" -eq 1 ]
	[[ $output == *"does not fit"* ]]
}

@test "values that options do not have" {
	holding good
	for bad in --policy=refcounts --policy= --fork=slow --fork=default --memory=arm --bound=-1 --bound=x --max=0 \
		--seconds=x --seconds=-1 --jason --full=yes; do
		ucow explore "$bad" good.litmus
		refused
	done
	ucow explore --full --bound 2 good.litmus
	refused
	ucow explore
	refused
}

@test "files that are not there, or no tests" {
	ucow explore nowhere.litmus
	refused
	echo "title: no statement" >bad.litmus
	ucow explore bad.litmus
	refused
}

@test "a policy that a fork mode does not have" {
	racing race ""
	ucow explore --policy refcount --fork lazy race.litmus
	refused
}
