#!/usr/bin/env bats
# What `ucow fuzz` does, prints, saves and refuses. $UCOW_MUTANT is the command built with a mistake in it.

# `run` sets stderr; jobs are waited for by the functions that started them.
# shellcheck disable=SC2154
load common

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
}

refused() {
	[ "$status" -eq 2 ]
	[ -z "$output" ]
	[ -n "$stderr" ]
}

# Some versions of jq take no input at all for a success.
json() {
	[ -n "$output" ] && jq -e "$1" <<<"$output" >/dev/null
}

# json_out FILTER: the same of what finish() left
json_out() {
	[ -s out ] && jq -e "$1" out >/dev/null
}

# fuzz ARGUMENT...: against modes, as JSON
fuzz() {
	ucow fuzz --against modes --json "$@"
}

# What does not depend on time and on who did it.
counts() {
	jq -c '[.programs, .operations, .divergences, .coverage]' <<<"$output"
}

need_mutant() {
	need_json
	[ -x "${UCOW_MUTANT:-}" ] || skip "no command with a mistake"
}

# mutant ARGUMENT...: the command with the mistake, as JSON, its report in $report
mutant() {
	local UCOW=$UCOW_MUTANT
	fuzz --seed 3 --programs 600 "$@"
	report=$output
}

# The statements alone; seeds and programs that they were made from tell same ones apart.
statements() {
	sed '1,/^$/d' "$1"
}

# start ARGUMENT...: ucow fuzz in the background with all its processes in one session, until it has workers
start() {
	# A shell without job control lets its jobs ignore SIGINT, and nohup whatever it starts SIGHUP.
	setsid env --default-signal=INT,TERM,HUP \
		"$UCOW" fuzz --against modes --seed 5 --programs 4000000000 "$@" >out 2>err 3>&- &
	main=$!
	until worker=$(pgrep -P "$main" -o); do
		kill -0 "$main" || return 1
		sleep 0.05
	done
}

# finish: wait for it; its exit status in `result`
finish() {
	result=0
	wait "$main" || result=$?
	cat out err
	echo "exit status $result"
}

nobody_is_left() {
	! pgrep -l -s "$main"
}

# ---- what it does ----

@test "against modes nothing diverges, and the report tells what was done" {
	ucow fuzz --against modes --seed 11 --programs 400
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^seed\ 11,\ against\ modes,\ programs\ of\ 30\ operations,\ [0-9]+\ workers?$ ]]
	[[ ${lines[1]} =~ ^400\ programs,\ [0-9]+\ operations\ in\ [0-9.]+\ s:\ [0-9]+\ programs\ a\ minute$ ]]
	[[ $output =~ coverage:\ [0-9]+\ of\ [0-9]+\ pairs\ of\ operations ]]
	[ "${lines[-1]}" = "0 divergences" ]
	[ ! -e ucow-fuzz ]
}

@test "against this kernel nothing diverges" {
	holding probe
	"$UCOW" litmus --on kernel probe.litmus | grep -q '^  skip' && skip "no kernel runner here"
	ucow fuzz --against kernel --seed 11 --programs 200
	[ "$status" -eq 0 ]
	[[ ${lines[0]} == "seed 11, against kernel "* ]]
	[[ ${lines[1]} == "200 programs, "* ]]
	[[ $output == *"known to differ:"* ]]
	[[ $output == *$'\nunder pressure, in fork mode eager:\n'* ]]
	[ "${lines[-1]}" = "0 divergences" ]
}

@test "without --against, it says what it chose" {
	ucow fuzz --seed 11 --programs 20
	[ "$status" -eq 0 ]
	[[ ${lines[0]} == "seed 11, against kernel "* || $stderr == *"against modes, not the kernel: "?* ]]
}

@test "the same seed does the same, whoever does it; another seed does not" {
	need_json
	fuzz --seed 21 --programs 300
	[ "$status" -eq 0 ]
	first=$(counts)
	for workers in 1 3; do
		fuzz --seed 21 --programs 300 --workers "$workers"
		json ".workers == $workers"
		[ "$(counts)" = "$first" ]
	done
	fuzz --seed 22 --programs 300
	[ "$(counts)" != "$first" ]
}

@test "shards are the whole together, and so are stretches" {
	need_json
	fuzz --seed 31 --programs 400
	whole=$(jq -c '[.programs, .operations]' <<<"$output")
	for part in "--shard 1/3" "--shard 2/3" "--shard 3/3"; do
		# shellcheck disable=SC2086 # words
		fuzz --seed 31 --programs 400 $part
		[ "$status" -eq 0 ]
		json '.programs == 133 or .programs == 134'
		echo "$output" >>shards
	done
	[ "$(jq -s -c '[(map(.programs) | add), (map(.operations) | add)]' shards)" = "$whole" ]
	for first in 0 100 200 300; do
		fuzz --seed 31 --first "$first" --programs 100
		json ".first == $first and .programs == 100"
		echo "$output" >>stretches
	done
	[ "$(jq -s -c '[(map(.programs) | add), (map(.operations) | add)]' stretches)" = "$whole" ]
}

@test "a shard with nothing to do does nothing" {
	need_json
	fuzz --seed 31 --programs 2 --shard 3/3
	[ "$status" -eq 0 ]
	json '.programs == 0 and .operations == 0 and .divergences == 0'
}

@test "longer programs have more operations" {
	need_json
	fuzz --seed 41 --programs 50 --ops 5
	json '.ops == 5 and .operations > 0'
	short=$(jq .operations <<<"$output")
	fuzz --seed 41 --programs 50 --ops 60
	json ".operations > 4 * $short"
}

@test "without --seed it takes one from the clock, and says which" {
	need_json
	fuzz --programs 40
	[ "$status" -eq 0 ]
	seed=$(jq .seed <<<"$output")
	first=$(counts)
	[[ $stderr == *"seed $seed"* ]]
	fuzz --programs 40 --seed "$seed"
	[ "$(counts)" = "$first" ]
	fuzz --programs 40
	json ".seed != $seed"
}

@test "--seconds ends it, and that is no failure" {
	ucow fuzz --against modes --seed 51 --programs 4000000000 --seconds 1
	[ "$status" -eq 0 ]
	[[ $output == *"ended by --seconds"* ]]
	[ "${lines[-1]}" = "0 divergences" ]
}

@test "--max-divergences ends it, and says so" {
	need_mutant
	mutant --programs 4000000000 --max-divergences 1 --save found
	[ "$status" -eq 1 ]
	json '.enough and .divergences > 0 and .programs < 4000000000'
}

# ---- what it prints ----

@test "--json: one object, the keys of the interface first, and nothing else" {
	need_json
	fuzz --seed 61 --programs 100
	[ "$status" -eq 0 ]
	[ "$(jq -c 'keys_unsorted[:6]' <<<"$output")" = \
		'["version","seed","programs","operations","divergences","saved"]' ]
	[ "$(jq -s length <<<"$output")" -eq 1 ]
	json '.version == 1 and .seed == 61 and .programs == 100 and .divergences == 0 and .saved == []'
	json '.against == "modes" and .shard == [1, 1] and .unjudged == 0 and .stopped == false'
	json '.findings == [] and (.seconds | type) == "number"'
	json '.pressure | length > 3 and all((.name | length > 0) and .count >= .programs and .programs >= 0)'
	json '[.pressure[] | select(.name == "pages merged" or .name == "pages written to swap") | .count] | all(. > 0)'
	json '.noise | all((.count | type == "number") and (.name | length > 0) and (.reason | length > 0))'
}

@test "coverage: pairs that were met and those that were not are all there are" {
	need_json
	fuzz --seed 61 --programs 3
	json '.coverage | .met > 0 and .met < .possible and .met + (.missing | length) == .possible'
	json '.coverage | .rarest > 0 and (.missing | all(length == 2))'
	ucow fuzz --against modes --seed 61 --programs 3
	[[ $output == *"  not after write: "* ]]
	fuzz --seed 61 --programs 2000
	json '.coverage | .met > 0.9 * .possible and .met + (.missing | length) == .possible'
}

@test "--quiet says nothing where nothing diverges" {
	ucow fuzz --against modes --seed 61 --programs 50 --quiet
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	[ -z "$stderr" ]
}

@test "progress goes to a terminal at stderr, on one line, and never to stdout" {
	command -v script >/dev/null || skip "no script(1)"
	script -qefc "'$UCOW' fuzz --against modes --seed 71 --programs 4000000000 --seconds 3 >out" /dev/null \
		</dev/null >terminal
	grep -qE $'\r\e\\[K[0-9]+/4000000000 programs, [0-9]+ operations, 0 divergences, [0-9]+ a minute' terminal
	[ "$(tr -d -c '\n' <terminal | wc -c)" -eq 0 ]
	run ! grep -q $'\r' out
	run ! grep -q '/4000000000' out
	grep -q '^0 divergences$' out
}

@test "help, the list of commands and the options" {
	ucow help
	[[ $output == *$'\n  fuzz '* ]]
	ucow help fuzz
	[ "$status" -eq 0 ]
	for option in seed programs ops against shard save json quiet seconds; do
		[[ $output == *"--$option"* ]]
	done
}

# ---- what it finds ----

@test "a mistake is found, made small, saved as a test that tells right from wrong" {
	need_mutant
	mutant --save found/here
	[ "$status" -eq 1 ]
	json '.divergences > 0 and (.saved | length) > 0 and ([.findings[] | .saved] == .saved)'
	[ "$(jq -r '.saved[]' <<<"$report" | sort)" = "$(find found/here -type f | sort)" ]
	told=0
	for file in found/here/*.litmus; do
		[ "$(statements "$file" | grep -vc '^check')" -le 15 ]
		grep -q '^title: .* differ: ' "$file"
		grep -qE '^about: (flat|eager|tables|lazy): .' "$file"
		grep -q '^source: ucow fuzz --against modes, the program of seed [0-9]*,' "$file"
		for fork in eager tables lazy; do
			ucow litmus --on engine --fork "$fork" "$file"
			[ "$status" -eq 0 ]
			"$UCOW_MUTANT" litmus --on engine --fork "$fork" "$file" || told=$((told + 1))
		done
	done
	[ "$told" -gt 0 ]
}

@test "what became the same small program is saved once" {
	need_mutant
	mutant --save found
	[ "$(jq .divergences <<<"$report")" -gt "$(jq '.saved | length' <<<"$report")" ]
	for file in found/*.litmus; do statements "$file" | grep -v '^check' | sha256sum; done | sort >sums
	[ -z "$(uniq -d sums)" ]
}

@test "what diverged is found again by its number alone" {
	need_mutant
	mutant --save found
	number=$(jq '[.findings[] | select(.repeats) | .program] | min' <<<"$report")
	mutant --save again --first "$number" --programs 1
	[ "$status" -eq 1 ]
	json ".divergences == 1 and .programs == 1 and .findings[0].program == $number"
	"$UCOW_MUTANT" fuzz --against modes --seed 3 --first "$number" --programs 1 --save text >out 2>err && false
	grep -qE "^! program $number: " out
	grep -q '^    saved: text/fuzz-.*\.litmus$' out
	[ "$(tail -n 1 out)" = "1 divergence" ]
}

@test "where it cannot be saved, it is told all the same" {
	need_mutant
	: >file
	mutant --save file/below
	[ "$status" -eq 1 ]
	json '.divergences > 0 and .saved == [] and (.findings | length > 0 and all(.problem != ""))'
}

@test "without --save, files go to ucow-fuzz" {
	need_mutant
	mutant
	[ "$status" -eq 1 ]
	json '.saved | length > 0 and all(startswith("ucow-fuzz/"))'
	[ "$(find ucow-fuzz -name '*.litmus' | wc -l)" -eq "$(jq '.saved | length' <<<"$report")" ]
}

# ---- processes ----

@test "interrupted, it tells what was done, leaves no process, and dies by that signal" {
	for signal in INT TERM HUP; do
		start
		kill "-$signal" "$main"
		finish
		[ "$result" -eq $((128 + $(kill -l $signal))) ]
		grep -q '^stopped before its end$' out
		grep -qE '^[0-9]+ programs, [0-9]+ operations in ' out
		nobody_is_left
	done
}

@test "interrupted, the JSON is whole" {
	need_json
	start --json
	kill -INT "$main"
	finish
	json_out '.stopped and .programs >= 0 and .divergences == 0'
	nobody_is_left
}

# kill_worker [KILLED]: one that is past its beginning, when no program would be guilty: it has had 0.4 s of its cpu.
# KILLED is one that may take a while to die: a sanitizer tells of the signal first.
kill_worker() {
	until worker=$(pgrep -P "$main" -o) && [ "$worker" != "${1:-}" ] &&
		ticks=$(awk '{ print $14 }' "/proc/$worker/stat") && [ "${ticks:-0}" -gt 40 ]; do
		kill -0 "$main" || return 1
		sleep 0.05
	done
	kill -SEGV "$worker"
}

@test "a worker that dies is a divergence of its program, and another goes on" {
	need_json
	start --json --workers 1 --max-divergences 2 --seconds 100 --save found
	kill_worker
	kill_worker "$worker"
	finish
	[ "$result" -eq 1 ]
	json_out '.divergences == 2 and .enough and .programs > 2 and (.findings | length == 2)'
	# It was not the fault of the programs.
	json_out '.findings | all(.what == "crash" and .repeats == false) and .[0].program != .[1].program'
	nobody_is_left
}

@test "workers do not outlive a campaign that is killed" {
	start
	kill -KILL "$main"
	wait "$main" || true
	for _ in $(seq 100); do
		pgrep -s "$main" >/dev/null || break
		sleep 0.1
	done
	nobody_is_left
}

# ---- what it refuses ----

@test "values that options do not have" {
	for bad in --seed=-1 --seed= --seed=x --seed=99999999999999999999 --programs=0 --programs=many --programs=-3 --ops=0 \
		--ops=201 --ops=3x --against=linux --against= --shard=0/2 --shard=3/2 --shard=1 --shard=/2 --shard=1/ \
		--shard=1/0 --shard=a/b --shard=1/2/3 --seconds=0 --seconds=soon --workers=0 --workers=1000 --first=-1 --max-divergences=0 \
		--save= --jason --json=yes; do
		ucow fuzz "$bad" --programs 1
		refused
		[[ $stderr == *"${bad%%=*}"* || $bad == --jason || $stderr == *folder* ]]
	done
}

@test "it takes no paths" {
	ucow fuzz "$UCOW_CORPUS"
	refused
	[[ $stderr == *"$UCOW_CORPUS"* ]]
}

@test "output that cannot be written is not success" {
	[ -w /dev/full ] || skip "no /dev/full"
	for format in --json --against=modes; do
		run bash -c '"$1" fuzz --against modes --programs 5 "$2" >/dev/full' - "$UCOW" "$format"
		[ "$status" -eq 2 ]
	done
}
