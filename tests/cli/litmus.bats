#!/usr/bin/env bats
# What `ucow litmus` runs, what it prints for people, and its exit status.

# `run` sets stderr.
# shellcheck disable=SC2154
load common

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export LC_ALL=C
}

@test "a test that holds: one line, status 0" {
	holding good
	ucow litmus --on engine --fork eager good.litmus
	[ "$status" -eq 0 ]
	[ "$output" = "engine: policy exclusive, fork mode eager

  pass   exclusive  good.litmus

1 test, 1 run: 1 pass, 0 break, 0 skip, 0 error; all as the files say" ]
	[ -z "$stderr" ]
}

@test "a check that does not hold: line, check, what was seen, status 1" {
	failing bad
	ucow litmus --on engine --fork eager bad.litmus
	[ "$status" -eq 1 ]
	[ "${lines[1]}" = '! break  exclusive  bad.litmus:4: check A reads buf "that": saw "this" (`breaks:` does not say so)' ]
	[ "${lines[2]}" = "1 test, 1 run: 0 pass, 1 break, 0 skip, 0 error; 1 not as the files say" ]
}

@test "a break that the file lists is expected" {
	losing lost "breaks: mapcount force-cow refcount"
	ucow litmus --on engine --policy refcount lost.litmus
	[ "$status" -eq 0 ]
	[ "${lines[1]}" = '  break  refcount  lost.litmus:8: check p reads "new!": saw "old!" (as `breaks:` says)' ]
}

@test "a listed policy that does not break is unexpected" {
	losing kept "breaks: exclusive"
	ucow litmus --on engine --policy exclusive kept.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == '! pass   exclusive  kept.litmus (`breaks:` says that it breaks)' ]]
}

@test "what the engine does not have is skipped, with the reason" {
	needing absent "hugetlb"
	ucow litmus --on engine --fork eager absent.litmus
	[ "$status" -eq 0 ]
	[ "${lines[1]}" = "  skip   exclusive  absent.litmus: engine: hugetlb not built yet" ]
}

@test "a statement that fails unexpectedly is an error, under a listed policy a break" {
	for breaks in "" "breaks: exclusive"; do
		litmus t <<-END
			title: unmapped memory is written
			$breaks
			A map buf 1
			A unmap buf
			A write buf "x"
			check A buf is not mapped
		END
		ucow litmus --on engine t.litmus
		if [ -z "$breaks" ]; then
			[ "$status" -eq 1 ]
			[[ ${lines[1]} == '! error  exclusive  t.litmus:5: A write buf "x": SIGSEGV' ]]
		else
			[ "$status" -eq 0 ]
			[[ ${lines[1]} == '  break  exclusive  t.litmus:5: A write buf "x": saw SIGSEGV'* ]]
		fi
	done
}

@test "fails: the very error and nothing else" {
	for outcome in SIGSEGV SIGBUS; do
		litmus t <<-END
			title: a store without permission
			A map buf 1 prot=r
			A write buf "x" fails $outcome
		END
		ucow litmus --on engine --fork eager t.litmus
		if [ "$outcome" = SIGSEGV ]; then
			[ "$status" -eq 0 ]
			[ "${lines[1]}" = "  pass   exclusive  t.litmus" ]
		else
			[ "$status" -eq 1 ]
			[[ ${lines[1]} == *"saw SIGSEGV"* ]]
		fi
	done
	litmus t <<-'END'
		title: a store with permission
		A map buf 1
		A write buf "x" fails SIGSEGV
	END
	ucow litmus --on engine t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == *"saw succeeded"* ]]
}

@test "may fail: either outcome, and a handle that stayed unbound holds all checks" {
	litmus t <<-'END'
		title: a pin where nothing is
		A map buf 1
		A unmap buf
		A pin buf w -> p may fail EFAULT
		check p reads "nothing"
		device p write "x"
		unpin p
		check A buf is not mapped
	END
	ucow litmus --on engine --fork eager t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  pass   exclusive  t.litmus" ]]
}

@test "a pin of a range with a hole takes the pages before it" {
	litmus t <<-'END'
		title: the third of four pages is gone
		A map buf 4
		A write buf "text"
		A unmap buf[2]
		A pin buf w -> p
		check p pages 2
		check p reads "text"
		A pin buf[2..3] w -> q fails EFAULT
	END
	ucow litmus --on engine t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  pass "* ]]
}

@test "files of direct I/O are bytes with a size" {
	litmus t <<-'END'
		title: out to a file and in again
		needs: direct-io
		file f 3 "file"
		A map buf 2
		A write buf[0] "mem0"
		A write buf[1] "mem1"
		A direct-out buf f@1
		check file f[0] reads "file"
		check file f[1] reads "mem0"
		check file f[2] reads "mem1"
		A direct-in buf[0] f@2
		check A reads buf[0] "mem1"
	END
	ucow litmus --on engine t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  pass "* ]]
}

@test "a lane that waits for ever for a page lock is a break" {
	litmus t <<-'END'
		title: a scanner never lets go
		breaks: mapcount
		A map buf 1
		A write buf "old"
		A fork B
		A lock buf -> l
		A write buf "new"
		check A reads buf "new"
	END
	ucow litmus --on engine --policy mapcount t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == '  break  mapcount  t.litmus:7: A write buf "new": saw blocked for ever on a page lock'* ]]
}

@test "a lane that waits for a page lock goes on when another lane unlocks" {
	litmus t <<-'END'
		title: a scanner lets go in time
		A map buf 1
		A write buf "old"
		A fork B
		A lock buf -> l
		parallel
		lane
		A write buf "new"
		lane
		unlock l
		end
		check A reads buf "new"
		check B reads buf "old"
	END
	ucow litmus --on engine --policy mapcount --repeat 8 t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  pass   mapcount "* ]]
}

@test "a lock that goes from lane to lane wakes each that waits for it" {
	litmus t <<-'END'
		title: two scanners and two writers of one page
		A map buf 2
		A write buf "old"
		A fork B
		A lock buf[1] -> m
		parallel
		lane
		A lock buf[1] -> l
		unlock l
		lane
		A write buf "new"
		lane
		B write buf[1] "kid"
		lane
		unlock m
		end
		check A reads buf "new"
		check B reads buf[0] "old"
		check B reads buf[1] "kid"
	END
	ucow litmus --on engine --policy mapcount --repeat 20 t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  pass   mapcount "* ]]
}

@test "lanes that wait for each other are a break at the first of them, whatever the others do" {
	litmus t <<-'END'
		title: two scanners and a writer wait for each other
		breaks: mapcount exclusive
		A map buf 2
		A write buf "old"
		A fork B
		A lock buf[1] -> m
		parallel
		lane
		A map other 4
		A write other "x"
		lane
		A lock buf[0] -> k
		A lock buf[1] -> l
		lane
		A write buf[1] "new"
		unlock m
		end
	END
	ucow litmus --on engine --policy mapcount --repeat 20 t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == '  break  mapcount  t.litmus:13: A lock buf[1] -> l: saw blocked for ever on a page lock'* ]]
}

@test "of two lanes that break one is named, with what it saw itself" {
	litmus t <<-'END'
		title: both lanes break
		A map buf 2
		A write buf[0] "text"
		A write buf[1] "more"
		parallel
		lane
		check A reads buf[0] "one!"
		lane
		check A reads buf[1] "two!"
		end
	END
	ucow litmus --on engine --repeat 20 t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == '! break  exclusive  t.litmus:7: check A reads buf[0] "one!": saw "text"'* ]] ||
		[[ ${lines[1]} == '! break  exclusive  t.litmus:9: check A reads buf[1] "two!": saw "more"'* ]]
}

@test "what one lane ends no other may use" {
	for pair in "B exit|B write buf \"x\"" "unpin p|check p reads \"text\"" "unlock l|unlock l" "put g|unpin p"; do
		litmus t <<-END
			title: gone or not
			A map buf 1
			A write buf "text"
			A pin buf w -> p
			A get buf r -> g
			A lock buf -> l
			A fork B
			parallel
			lane
			${pair%|*}
			lane
			${pair#*|}
			end
			check A reads buf "text"
		END
		ucow litmus --on engine t.litmus
		if [ "$pair" = "put g|unpin p" ]; then
			[ "$status" -eq 0 ]
		else
			[ "$status" -eq 1 ]
			[[ ${lines[1]} =~ ^"! error  exclusive  t.litmus:"(10|12)": ".*": "[Bpl]" may be gone: another lane ends it in line 1"[02] ]]
		fi
	done
}

@test "a process that many lanes use, new ones in each, exits in one" {
	litmus t <<-'END'
		title: five lanes
		A map buf 4
		A write buf "init"
		A fork B
		parallel
		lane
		A write buf[0] "l0"
		A fork C
		C write buf "kid!"
		check C reads buf "kid!"
		C exit
		lane
		A write buf[1] "l1"
		A map own 2
		A write own "mine"
		check A reads own "mine"
		lane
		A write buf[2] "l2"
		A map other 2
		check A reads other zero
		lane
		check A reads buf[3] "init"
		B exit
		end
		check A reads buf[0] "l0it"
		check A reads buf[1] "l1it"
		check A reads buf[2] "l2it"
		check A reads own "mine"
	END
	ucow litmus --on engine --fork all --repeat 20 t.litmus
	[ "$status" -eq 0 ]
	[[ $output == *"3 pass, 0 break, 0 skip, 0 error"* ]]
}

# Of three statements in two lanes there are three orders; each makes one of the texts come last.
order_of_lanes() {
	litmus t <<-END
		title: which order
		A map buf 1
		parallel
		lane
		A write buf "a1"
		A write buf[0]+2 "a2"
		lane
		A write buf "b1b2"
		end
		check A reads buf $1
	END
	ucow litmus --on engine --repeat "$2" t.litmus
}

@test "--repeat: lanes are threads, which come in every order" {
	order_of_lanes '"a1a2" or "b1a2" or "b1b2"' 50
	[ "$status" -eq 0 ]
	for others in '"b1a2" or "b1b2"' '"a1a2" or "b1a2"' '"a1a2" or "b1b2"'; do
		for ((tries = 0; tries < 10; tries++)); do
			order_of_lanes "$others" 500
			if [ "$status" -eq 1 ]; then break; fi
		done
		[ "$status" -eq 1 ]
	done
}

@test "--repeat finds the interleaving that fails, and names its seed" {
	litmus t <<-'END'
		title: which lane is last
		A map buf 1
		parallel
		lane
		A write buf "one"
		lane
		A write buf "two"
		end
		check A reads buf "one"
	END
	ucow litmus --on engine --repeat 1000 t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} =~ 'saw "two"'.*\(seed\ ([0-9]+)\)$ ]]
}

@test "with lanes, a listed policy may break or not" {
	for text in one two; do
		litmus t <<-END
			title: which lane is last
			breaks: exclusive
			A map buf 1
			parallel
			lane
			A write buf "one"
			lane
			A write buf "two"
			end
			check A reads buf "$text"
		END
		ucow litmus --on engine --seed 3 t.litmus
		[ "$status" -eq 0 ]
	done
}

@test "a check that means nothing under a policy is left out and counted" {
	litmus t <<-'END'
		title: fresh memory is exclusive
		A map buf 1
		A write buf "x"
		check A reads buf "x"
		check A buf is exclusive
	END
	ucow litmus --on engine --policy refcount t.litmus
	[ "$status" -eq 0 ]
	[ "${lines[1]}" = "  pass   refcount  t.litmus [1 check skipped: line 5: engine: the older policies know no \`exclusive\`]" ]
}

@test "a test none of whose checks count is a skip" {
	litmus t <<-'END'
		title: only exclusive is asked for
		A map buf 1
		A write buf "x"
		check A buf is exclusive
	END
	ucow litmus --on engine --policy refcount t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  skip   refcount  t.litmus: "* ]]
}

@test "forks: modes that the file does not list are skipped" {
	litmus t <<-'END'
		title: for another mode
		forks: lazy
		A map buf 1
		check A reads buf zero
	END
	ucow litmus --on engine --fork eager t.litmus
	[ "$status" -eq 0 ]
	[[ ${lines[1]} == "  skip   exclusive  t.litmus: "*eager* ]]
}

@test "folders are walked in name order" {
	holding t/b/z
	holding t/a
	holding t/b/c/y
	touch t/b/readme.txt
	ucow litmus --on engine --tap t
	[ "$status" -eq 0 ]
	[ "$(sed -n 's/^ok [0-9]* - exclusive: //p' <<<"$output" | tr '\n' ' ')" = "a y z " ]
}

@test "--quiet: nothing where all is as the files say, else only the rest" {
	holding good
	failing bad
	ucow litmus --quiet --on engine good.litmus
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	ucow litmus --quiet --on engine good.litmus bad.litmus
	[ "$status" -eq 1 ]
	[ "${#lines[@]}" -eq 1 ]
	[[ ${lines[0]} == "! break "*bad.litmus:4:* ]]
}

@test "no colours in a pipe, on a dumb terminal, or with NO_COLOR; colours on a terminal" {
	holding good
	ucow litmus --on engine good.litmus
	[[ $output != *$'\033'* ]]
	run script -qec "TERM=xterm '$UCOW' litmus --on engine good.litmus" /dev/null
	[[ $output == *$'\033[32m'* ]]
	run script -qec "TERM=xterm NO_COLOR=1 '$UCOW' litmus --on engine good.litmus 2>/dev/null" /dev/null
	[[ $output != *$'\033['* ]]
	run script -qec "TERM=dumb '$UCOW' litmus --on engine good.litmus 2>/dev/null" /dev/null
	[[ $output != *$'\033['* ]]
}

# Takes a minute at the very least.
endless() {
	{
		echo "title: sixty thousand times a gigabyte"
		echo "A map buf 262144"
		yes "A read buf" | head -n 60000
		echo "check A reads buf[0] zero"
	} | litmus "$1"
}

@test "a run does not outlive its time" {
	endless t
	ucow litmus --on engine --timeout 1 t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == "! error  exclusive  t.litmus:"*": A read buf: engine: timed out after 1 s" ]]
}

@test "a run with lanes does not outlive its time, and names a statement of a lane" {
	{
		echo "title: two lanes, thirty thousand times a gigabyte each"
		echo "A map buf 262144"
		echo "parallel"
		for lane in 1 2; do
			echo "lane # $lane"
			yes "A read buf" | head -n 30000
		done
		echo "end"
		echo "check A reads buf[0] zero"
	} | litmus t
	ucow litmus --on engine --timeout 1 t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == "! error  exclusive  t.litmus:"*": A read buf: engine: timed out after 1 s"* ]]
}

@test "lanes that get no thread are an error, and nobody waits for them" {
	if grep -q -e __asan_init -e __tsan_init "$UCOW"; then skip "a sanitizer needs all the addresses there are"; fi
	{
		echo "title: eight lanes of a gigabyte of stack, and four gigabytes"
		echo "A map buf 8"
		echo "parallel"
		for lane in 0 1 2 3 4 5 6 7; do
			echo "lane"
			echo "A write buf[$lane] \"text\""
		done
		echo "end"
		echo "check A reads buf \"text\""
	} | litmus t
	ulimit -S -s 1048576 -v 4194304
	ucow litmus --on engine --repeat 8 t.litmus
	[ "$status" -eq 1 ]
	[[ ${lines[1]} == '! error  exclusive  t.litmus:5: A write buf[0] "text": engine: no lanes: EAGAIN (seed 0)' ]]
}

@test "an engine that dies takes only its own run along" {
	endless a
	holding b
	"$UCOW" litmus --on engine a.litmus b.litmus >out 2>&1 3>&- &
	until runner=$(pgrep -P $!); do sleep 0.1; done
	kill -KILL "$runner"
	result=0
	wait $! || result=$?
	cat out
	[ "$result" -eq 1 ]
	grep -q '^! error  exclusive  a.litmus.*engine: crashed.*SIGKILL$' out
	grep -qx '  pass   exclusive  b.litmus' out
}

@test "the corpus holds under the rules of today" {
	[ -d "$UCOW_CORPUS" ] || skip "no corpus"
	ucow litmus --quiet --on engine "$UCOW_CORPUS"
	[ "$status" -eq 0 ]
	[ -z "$output" ]
}

@test "the corpus's lanes hold again and again" {
	ucow litmus --on engine --fork all --repeat 5 "$UCOW_CORPUS/parallel"
	[ "$status" -eq 0 ]
	[[ ${lines[-1]} == *" 0 break, "*" 0 error; all as the files say" && ${lines[-1]} != *": 0 pass, "* ]]
}
