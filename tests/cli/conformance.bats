#!/usr/bin/env bats
# `ucow litmus --on kernel` as a tool for other people's kernels: what it tells of the machine, how one bad test leaves
# the others alone, what it gives back.

# `run` sets stderr; jobs are waited for by the functions that started them.
# shellcheck disable=SC2154
load common

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
	holding probe
	"$UCOW" litmus --on kernel probe.litmus | grep -q '^  skip' && skip "no kernel runner here"
	rm probe.litmus
}

teardown() {
	[ -e "$BATS_TEST_TMPDIR/switches" ] || return 0
	while read -r path value; do echo "$value" >"$path"; done <"$BATS_TEST_TMPDIR/switches"
}

# Takes far longer than any test of this file.
endless() {
	{
		echo "title: sixty thousand times a gigabyte"
		echo "A map buf 262144"
		yes "A read buf" | head -n 60000
		echo "check A reads buf[0] zero"
	} | litmus "$1"
}

# launch ARGUMENT...: ucow in the background, its output in `out`
launch() {
	# A shell without job control lets its jobs ignore SIGINT, and nohup whatever it starts SIGHUP.
	setsid env --default-signal=INT,TERM,HUP ${signals:+"$signals"} \
		"$UCOW" litmus "$@" "$BATS_TEST_TMPDIR/t" >out 2>err 3>&- &
	main=$!
}

# start ARGUMENT...: the same, until A of some test is at work
start() {
	launch "$@"
	until supervisor=$(pgrep -P "$main" -x ucow) && agent=$(pgrep -P "$supervisor"); do
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

# Whatever ucow has started names its tests on its command line.
nobody_is_left() {
	local pid
	for pid in $(pgrep -f "^[^ ]*ucow litmus .*$BATS_TEST_TMPDIR/t"); do
		# Nobody may have reaped it yet.
		grep -qs '^State:.Z' "/proc/$pid/status" || [ ! -e "/proc/$pid" ] || return 1
	done
}

good_endless_good() {
	holding t/1-good
	endless t/2-endless
	holding t/3-good
}

# ---- what it tells of the machine ----

@test "people get the facts at the head, where the kernel takes part" {
	holding good
	for on in kernel both; do
		ucow litmus --on $on good.litmus
		[ "$status" -eq 0 ]
		grep -q "^  kernel      release $(uname -r); version $(uname -v | cut -d ' ' -f 1)" <<<"$output"
		grep -q "^  machine     page_size $(getconf PAGESIZE); cpus $(nproc --all)" <<<"$output"
		grep -q "^  rights      uid $(id -u);" <<<"$output"
		for fact in sees_frames userfaultfd io_uring ksm_run thp numa_balancing swap_mib soft_dirty memcg forced_write; do
			grep -qE "\b$fact " <<<"$output"
		done
		run ! grep -E '^.{121,}' <<<"$output"
	done
}

@test "no facts without the kernel, and none with --quiet" {
	holding good
	ucow litmus --on engine good.litmus
	run ! grep -q page_size <<<"$output"
	ucow litmus --on kernel --quiet good.litmus
	[ "$status" -eq 0 ]
	[ -z "$output$stderr" ]
}

@test "tap has the facts in comments behind the plan" {
	holding good
	ucow litmus --on kernel --tap --quiet good.litmus
	[ "$status" -eq 0 ]
	[ "${lines[0]}" = "TAP version 13" ]
	[ "${lines[1]}" = "1..1" ]
	[ "${lines[2]}" = "# release: $(uname -r)" ]
	[ "${lines[-1]}" = "ok 1 - kernel: good" ]
	run ! grep -vE '^(TAP version 13|1\.\.1|# [a-z_]+: .*|ok 1 - kernel: good)$' <<<"$output"
}

@test "json has the facts behind all else" {
	need_json
	holding good
	ucow litmus --on kernel --json good.litmus
	[ "$status" -eq 0 ]
	jq -e 'keys_unsorted == ["version", "results", "summary", "host"]' <<<"$output"
	jq -e --arg release "$(uname -r)" '.host.release == $release and (.host.page_size | type) == "number" and
		(.host.sees_frames | type) == "boolean" and (.host.io_uring | type) == "string"' <<<"$output"
	ucow litmus --on engine --json good.litmus
	jq -e 'keys_unsorted == ["version", "results", "summary"]' <<<"$output"
}

@test "the facts are those of the machine" {
	need_json
	holding good
	ucow litmus --on kernel --json good.litmus
	[ "$status" -eq 0 ]
	jq -e --argjson taint "$(cat /proc/sys/kernel/tainted)" '.host.tainted == $taint' <<<"$output"
	if [ -r /sys/kernel/mm/transparent_hugepage/enabled ]; then
		thp=$(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled)
		jq -e --arg thp "$thp" '.host.thp == $thp' <<<"$output"
	fi
	swap=$(awk '$1 == "SwapTotal:" { print int($2 / 1024) }' /proc/meminfo)
	jq -e --argjson swap "$swap" '.host.swap_mib == $swap' <<<"$output"
	if [ -r /proc/config.gz ]; then
		for option in KSM USERFAULTFD MEM_SOFT_DIRTY IO_URING; do
			set=$(zcat /proc/config.gz | grep -c "^CONFIG_$option=y" || true)
			jq -e --arg option "$option=y" --argjson set "$set" \
				'([.host.config | split(" ")[] | select(. == $option)] | length) == $set' <<<"$output"
		done
	fi
}

# ---- what was left out ----

@test "why a test was left out is said beside it, and counted by reason" {
	need_json
	needing t/a hugetlb
	needing t/b hugetlb
	needing t/c thp
	ucow litmus --on kernel t
	[ "$status" -eq 0 ]
	grep -qx '  skip   kernel  t/b.litmus: kernel: hugetlb: not driven yet' <<<"$output"
	grep -qx '     2 tests  kernel: hugetlb: not driven yet' <<<"$output"
	grep -qx '     1 test   kernel: thp: not driven yet' <<<"$output"
	ucow litmus --on kernel --tap t
	grep -qx 'ok 3 - kernel: c # SKIP kernel: thp: not driven yet' <<<"$output"
	ucow litmus --on kernel --json t
	jq -e '.results[2].reason == "kernel: thp: not driven yet"' <<<"$output"
	ucow litmus --on both --policy all t
	grep -A 1 -x '     2 tests  kernel: hugetlb: not driven yet' <<<"$output" | grep -qx '              a b'
}

@test "which checks were left out, and why" {
	need_json
	litmus t <<-'END'
		title: bits that the kernel does not show
		A map buf 1
		A write buf "x"
		check A buf is dirty
		check A reads buf "x"
		check A buf is accessed
	END
	ucow litmus --on kernel t.litmus
	[ "$status" -eq 0 ]
	grep -qx '  pass   kernel  t.litmus \[2 checks skipped: lines 4, 6: the kernel does not show this bit of an entry\]' <<<"$output"
	grep -qx '     1 test   the kernel does not show this bit of an entry (2 checks)' <<<"$output"
	ucow litmus --on kernel --tap t.litmus
	grep -qx '# line 6: check skipped: the kernel does not show this bit of an entry' <<<"$output"
	ucow litmus --on kernel --json t.litmus
	jq -e '.results[0] | .skipped_checks == 2 and
		(.skipped | map(.line) == [4, 6] and all(.reason == "the kernel does not show this bit of an entry"))' <<<"$output"
}

@test "without privileges everything that can be seen is judged, and the rest left out by name" {
	[ -d "$UCOW_CORPUS" ] || skip "no corpus"
	as=()
	open=$(mktemp -d)
	cp -r "$UCOW" "$UCOW_CORPUS" "$open"
	if [ "$(id -u)" -eq 0 ]; then
		chmod -R a+rX "$open"
		as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
		"${as[@]}" "$open/ucow" --version || skip "nobody can get at it"
	fi
	run "${as[@]}" "$open/ucow" litmus --on kernel "$open/litmus"
	rm -rf "$open"
	echo "$output"
	[ "$status" -eq 0 ]
	grep -q 'capabilities none' <<<"$output"
	grep -q 'sees_frames no' <<<"$output"
	grep -qx '  set_for_run nothing' <<<"$output"
	for why in 'swap: needs root to switch swap on' 'cgroup: needs root to make control groups' \
		'ksm: needs root to run same-page merging'; do
		grep -qE "^ +[0-9]+ tests  kernel: $why$" <<<"$output"
	done
	grep -qE '^ +[0-9]+ tests  needs root \(CAP_SYS_ADMIN\) to see frame numbers \([0-9]+ checks\)$' <<<"$output"
	grep -qE '^[0-9]+ tests, [0-9]+ runs: [1-9][0-9]+ pass, 0 break, ' <<<"$output"
}

# ---- TAP for others ----

@test "tap is what prove reads" {
	command -v prove >/dev/null || skip "no prove"
	holding t/good
	failing t/bad
	needing t/absent hugetlb
	ucow litmus --on kernel --tap t
	[ "$status" -eq 1 ]
	"$UCOW" litmus --on kernel --tap t >all.tap || true
	run prove -v -e cat all.tap
	echo "$output"
	[ "$status" -eq 1 ]
	grep -q 'Failed test:  2$' <<<"$output"
	grep -q 'ok 1 - kernel: absent # SKIP kernel: hugetlb: not driven yet' <<<"$output"
	run ! grep -qiE 'parse error|bad plan|unknown' <<<"$output"
	"$UCOW" litmus --on kernel --tap t/good.litmus >good.tap
	prove -e cat good.tap
}

@test "tap tells of a failure: file, line, check, what was seen" {
	failing t/bad
	ucow litmus --on kernel --tap t
	[ "$status" -eq 1 ]
	[ "${lines[-3]}" = "not ok 1 - kernel: bad" ]
	[ "${lines[-2]}" = '# t/bad.litmus:4: check A reads buf "that"' ]
	[ "${lines[-1]}" = '# saw "this"' ]
}

@test "names do not depend on the folder, the verdict or the day, and name one test each" {
	[ -d "$UCOW_CORPUS" ] || skip "no corpus"
	names() {
		sed -n 's/^\(not \)\?ok \([0-9]* - [^#]*[^# ]\).*/\2/p'
	}
	(cd "$UCOW_CORPUS" && "$UCOW" litmus --on kernel --tap . | names) >here
	"$UCOW" litmus --on kernel --tap "$UCOW_CORPUS/" | names >there
	diff here there
	[ "$(find "$UCOW_CORPUS/" -name '*.litmus' | wc -l)" -eq "$(wc -l <here)" ]
	sed 's/^[0-9]* - //' here | sort | uniq -d >twice
	[ ! -s twice ]
}

@test "two tests of one name are told apart by their paths" {
	holding t/a/one
	holding t/b/one
	holding t/b/two
	ucow litmus --on kernel --tap t
	[ "$(sed -n 's/^ok [0-9]* - //p' <<<"$output" | tr '\n' ' ')" = "kernel: t/a/one.litmus kernel: t/b/one.litmus kernel: two " ]
}

# ---- one test's misfortune is its own ----

@test "a test that hangs gets a verdict, and the others run" {
	good_endless_good
	ucow litmus --on kernel --timeout 1 t
	[ "$status" -eq 1 ]
	grep -q '^  pass   kernel  t/1-good.litmus$' <<<"$output"
	grep -qE '^! error  kernel  t/2-endless.litmus:[0-9]+: A read buf: kernel: timed out after 1 s$' <<<"$output"
	grep -q '^  pass   kernel  t/3-good.litmus$' <<<"$output"
	grep -q '^3 tests, 3 runs: 2 pass, 0 break, 0 skip, 1 error; 1 not as the files say$' <<<"$output"
	nobody_is_left
}

@test "a participant that is killed is an error with the signal, and the others run" {
	for signal in KILL ABRT TERM INT; do
		good_endless_good
		start --on kernel
		kill "-$signal" "$agent"
		finish
		[ "$result" -eq 1 ]
		grep -q "^! error  kernel  .*/t/2-endless.litmus:[0-9]*: A read buf: process A crashed: SIG$signal\$" out
		[ "$(grep -c '^  pass   kernel  .*good.litmus$' out)" -eq 2 ]
		nobody_is_left
	done
}

@test "a participant that is stopped is an error, and ended" {
	good_endless_good
	start --on kernel --timeout 2
	kill -STOP "$agent"
	finish
	[ "$result" -eq 1 ]
	grep -q '^! error  kernel  .*/t/2-endless.litmus:[0-9]*: A read buf: kernel: timed out after 2 s$' out
	[ "$(grep -c '^  pass   kernel  .*good.litmus$' out)" -eq 2 ]
	nobody_is_left
}

@test "a supervisor that is killed is an error with the signal, takes its participants along, and the others run" {
	for signal in KILL ABRT TERM; do
		good_endless_good
		start --on kernel
		kill "-$signal" "$supervisor"
		finish
		[ "$result" -eq 1 ]
		grep -q "^! error  kernel  .*/t/2-endless.litmus: kernel: the supervisor crashed or hung: SIG$signal\$" out
		[ "$(grep -c '^  pass   kernel  .*good.litmus$' out)" -eq 2 ]
		nobody_is_left
	done
}

@test "no process outlives the command, though it was killed itself" {
	good_endless_good
	start --on kernel
	kill -KILL "$main"
	finish
	[ "$result" -eq 137 ]
	until nobody_is_left; do sleep 0.05; done
}

@test "no file is left where files were" {
	mkdir -p t tmp
	{
		echo "title: direct I/O for ever"
		echo 'file f 4 "text"'
		echo "A map buf 4"
		yes $'A direct-in buf f\nA direct-out buf f' | head -n 60000
		echo 'check A reads buf[0] "text"'
	} | litmus t/1-direct
	holding t/2-good
	export TMPDIR=$BATS_TEST_TMPDIR/tmp
	start --on kernel
	kill -KILL "$supervisor"
	finish
	[ "$result" -eq 1 ]
	[ -z "$(ls -A tmp)" ]
	start --on kernel
	kill -TERM "$main"
	finish
	[ -z "$(ls -A tmp)" ]
	start --on kernel
	kill -KILL "$main"
	finish
	[ -z "$(ls -A tmp)" ]
}

@test "a test during which the kernel warns is an error, whatever it saw" {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	unshare -m true 2>/dev/null || skip "no mount namespaces"
	holding t/1-good
	{
		echo "title: a test that takes its time"
		echo "A map buf 65536"
		yes "A read buf" | head -n 3000
		echo "check A reads buf[0] zero"
	} | litmus t/2-slow
	holding t/3-good
	echo 0 >taint
	# Marks of the kernel last until it is booted again: they are a file of ours here.
	# shellcheck disable=SC2016
	unshare -m sh -c 'mount --bind taint /proc/sys/kernel/tainted && exec "$@"' _ \
		"$UCOW" litmus --on kernel "$BATS_TEST_TMPDIR/t" >out 2>err 3>&- &
	main=$!
	until supervisor=$(pgrep -P "$main" -x ucow) && agent=$(pgrep -P "$supervisor") && grep -q 1-good out; do
		kill -0 "$main" || return 1
	done
	kill -STOP "$supervisor"
	echo 512 >taint
	kill -CONT "$supervisor"
	finish
	[ "$result" -eq 1 ]
	grep -q '2-slow.litmus: kernel: it tainted itself during this test (W, a warning): see its log$' out
	[ "$(grep -c '^  pass   kernel  .*good.litmus$' out)" -eq 2 ]
}

# ---- signals ----

@test "interrupted, it tells what was done so far, ends everybody, and dies by that signal" {
	good_endless_good
	for signal in INT TERM HUP; do
		start --on kernel
		kill "-$signal" "$main"
		finish
		[ "$result" -eq $((128 + $(kill -l $signal))) ]
		grep -q '^  pass   kernel  .*/t/1-good.litmus$' out
		run ! grep -qE '2-endless|3-good' out
		grep -qx "1 of 3 tests, 1 run: 1 pass, 0 break, 0 skip, 0 error; all as the files say; interrupted by SIG$signal" out
		nobody_is_left
	done
}

@test "interrupted on both: a test that has not run everywhere does not count" {
	good_endless_good
	launch --on both --timeout 1000
	until grep -q 'kernel .*1-good' out && pgrep -P "$main" -x ucow; do
		kill -0 "$main" || return 1
		sleep 0.05
	done
	kill -INT -- "-$main"
	finish
	[ "$result" -eq 130 ]
	grep -q '^  pass   exclusive  .*/t/1-good.litmus$' out
	grep -q '^  pass   kernel     .*/t/1-good.litmus$' out
	run ! grep -qE '2-endless|3-good' out
	grep -q '^1 of 3 tests, 2 runs: 2 pass, .*; interrupted by SIGINT$' out
	nobody_is_left
}

@test "interrupted, tap bails out and json is whole" {
	need_json
	good_endless_good
	start --on kernel --tap
	kill -TERM "$main"
	finish
	[ "$result" -eq 143 ]
	grep -qx '1..3' out
	grep -qx 'ok 1 - kernel: 1-good' out
	[ "$(tail -n 1 out)" = "Bail out! interrupted by SIGTERM" ]
	start --on kernel --json
	kill -TERM "$main"
	finish
	[ "$result" -eq 143 ]
	jq -e '.interrupted == "SIGTERM" and (.results | map(.test) == ["1-good"]) and .summary.pass == 1' out
}

@test "signals that were ignored from the start stay ignored" {
	good_endless_good
	signals=--ignore-signal=INT,HUP start --on kernel
	kill -INT "$main"
	kill -HUP "$main"
	kill -TERM "$main"
	finish
	[ "$result" -eq 143 ]
	grep -q '; interrupted by SIGTERM$' out
}

# ---- switches of the machine ----

switches=(/proc/sys/kernel/numa_balancing /sys/kernel/mm/ksm/run)

# need_switches: switch on what this machine has; teardown puts it back
need_switches() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	! pgrep -r R,S,D -x ucow-guardian >/dev/null || skip "somebody holds the switches"
	on=()
	for path in "${switches[@]}"; do
		[ -w "$path" ] || continue
		echo "$path $(cat "$path")" >>"$BATS_TEST_TMPDIR/switches"
		if { echo 1 >"$path"; } 2>/dev/null; then on+=("$path"); fi
	done
	[ "${#on[@]}" -gt 0 ] || skip "this machine has no such switch"
}

all_read() {
	local path
	for path in "${on[@]}"; do
		echo "$path: $(cat "$path")"
		[ "$(cat "$path")" = "$1" ] || return 1
	done
}

@test "what moves pages is off during a run, named, and on again after it" {
	need_switches
	good_endless_good
	start --on kernel --timeout 3
	all_read 0
	finish
	[ "$result" -eq 1 ]
	all_read 1
	for path in "${on[@]}"; do
		grep -qE "^  set_for_run .*$([ "${path##*/}" = run ] && echo ksm_run || echo numa_balancing)=0" out
	done
	run ! pgrep -r R,S,D -x ucow-guardian
}

@test "switches are restored when the run is interrupted" {
	need_switches
	good_endless_good
	for signal in INT TERM HUP; do
		start --on kernel
		all_read 0
		kill "-$signal" "$main"
		finish
		[ "$result" -eq $((128 + $(kill -l $signal))) ]
		all_read 1
	done
}

@test "switches are restored when the run is killed, or everybody in its session" {
	need_switches
	good_endless_good
	for target in "" -; do
		start --on kernel
		all_read 0
		kill -KILL -- "$target$main"
		finish
		[ "$result" -eq 137 ]
		until all_read 1; do sleep 0.05; done
	done
}

@test "switches are restored when a worker or the guardian is killed" {
	need_switches
	good_endless_good
	start --on kernel
	all_read 0
	kill -KILL "$supervisor"
	finish
	[ "$result" -eq 1 ]
	all_read 1
	start --on kernel --timeout 3
	pkill -KILL -P "$main" -x ucow-guardian
	finish
	[ "$result" -eq 1 ]
	all_read 1
}

@test "the engine alone touches no switch" {
	need_switches
	good_endless_good
	launch --on engine
	until pgrep -P "$main"; do
		kill -0 "$main" || return 1
		sleep 0.05
	done
	all_read 1
	kill -TERM "$main"
	finish
	all_read 1
}

# ---- swap, groups and the merger for the time of a run ----

# pressing NAME: a test that uses all of them, and then goes on for long
pressing() {
	{
		echo "title: a page on a swap device, and much time"
		echo "needs: swap ksm cgroup"
		echo "cgroup g limit=1048576"
		echo "A map page 1"
		echo "A map buf 262144"
		echo "A join g"
		echo "A advise page mergeable"
		echo 'A write page "same"'
		echo "A advise page pageout"
		yes "A read buf" | head -n 60000
		echo "check A reads buf[0] zero"
	} | litmus "$1"
}

# out_and_in NAME: holds where there is swap
out_and_in() {
	litmus "$1" <<-'END'
		title: out and in
		needs: swap
		A map buf 4
		A write buf "init"
		A fork B
		reclaim 4
		check A buf is swapped
		check B reads buf "init"
	END
}

ksm=/sys/kernel/mm/ksm

merger() { cat $ksm/{run,pages_to_scan,sleep_millisecs}; }

# start_pressing: a run under pressure, its files below this test's folder
start_pressing() {
	export TMPDIR=$BATS_TEST_TMPDIR
	need_switches
	before=$(merger)
	holding t/1-good
	pressing t/2-endless
	holding t/3-good
	start --on kernel
	# It may be that this machine, or this file system, swaps nothing.
	grep -q '2-endless.*kernel: \(swap\|ksm\|cgroup\)' out && skip "$(grep 2-endless out)"
	swap=$(echo "$BATS_TEST_TMPDIR"/ucow-swap-*)
	mark=${swap##*/ucow-swap-}
	until grep -q "^$swap " /proc/swaps && [ -n "$(members)" ]; do
		kill -0 "$main" || return 1
		sleep 0.05
	done
	[ "$(stat -c %a "$swap")" = 600 ]
	[ "$(cat $ksm/pages_to_scan)" = 100000 ]
}

# Processes in the groups of the run.
members() {
	find /sys/fs/cgroup -path "*/ucow-$mark/*" -name cgroup.procs -exec cat {} + 2>/dev/null
}

nothing_is_left() {
	! grep "ucow-swap-$mark" /proc/swaps || return 1
	[ ! -e "$swap" ] || return 1
	[ -z "$(find /sys/fs/cgroup -name "ucow-$mark" 2>/dev/null)" ] || return 1
	[ "$(merger)" = "$before" ]
}

@test "swap and groups are there during a run, named, and gone after it" {
	export TMPDIR=$BATS_TEST_TMPDIR
	need_switches
	before=$(merger)
	out_and_in t/1-out
	run -0 "$UCOW" litmus --on kernel t
	[[ "$output" == *"set_for_run "*"swap=256M groups="* ]] || skip "no swap here"
	[[ "$output" == *"1 test, 1 run: 1 pass, 0 break, 0 skip, 0 error"* ]]
	[ "$(merger)" = "$before" ]
	[ "$(echo "$TMPDIR"/ucow-*)" = "$TMPDIR/ucow-*" ]
	run ! grep -F "$TMPDIR" /proc/swaps
}

@test "swap, groups and the merger are given back when the run is interrupted" {
	start_pressing
	kill -INT "$main"
	finish
	[ "$result" -eq 130 ]
	nothing_is_left
}

@test "swap, groups and the merger are given back when the run is killed, or everybody in its session" {
	for target in "" -; do
		rm -rf t
		start_pressing
		kill -KILL -- "$target$main"
		finish
		[ "$result" -eq 137 ]
		until nothing_is_left; do sleep 0.05; done
	done
}

@test "swap, groups and the merger are given back when the guardian or a worker is killed" {
	start_pressing
	pkill -KILL -P "$main" -x ucow-guardian
	kill -KILL "$supervisor"
	finish
	[ "$result" -eq 1 ]
	grep -q 'kernel  .*/t/3-good.litmus$' out
	nothing_is_left
}

@test "swap that a killed test had switched off is on for the next one" {
	export TMPDIR=$BATS_TEST_TMPDIR
	need_switches
	{
		echo "title: no swap, for long"
		echo "A map buf 262144"
		echo "swapoff"
		yes "A read buf" | head -n 60000
		echo "check A reads buf[0] zero"
	} | litmus t/1-off
	out_and_in t/2-out
	start --on kernel
	grep -q '1-off.*kernel: swap' out && skip "$(grep 1-off out)"
	while grep -F "$TMPDIR" /proc/swaps; do
		kill -0 "$main" || return 1
		sleep 0.05
	done
	kill -KILL "$supervisor"
	finish
	[ "$result" -eq 1 ]
	grep -q '^  pass   kernel  .*/t/2-out.litmus$' out
}
