#!/usr/bin/env bats
# What stands before the verb: help, version, and everything that is no command.

# `run` sets stderr.
# shellcheck disable=SC2154
load common

@test "--version names program and version" {
	ucow --version
	[ "$status" -eq 0 ]
	[[ $output =~ ^ucow\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "help lists the commands that exist, and no other" {
	ucow help
	[ "$status" -eq 0 ]
	[ "$(grep -c '^  [a-z]' <<<"$output")" -eq 5 ]
	for command in litmus explore fuzz bench help; do
		grep -q "^  $command  " <<<"$output"
		ucow help "$command"
		[ "$status" -eq 0 ]
		ucow help
	done
}

@test "help COMMAND is what COMMAND --help prints" {
	ucow litmus --help
	[ "$status" -eq 0 ]
	[[ $output == *--policy* && $output == *--timeout* && $output != *--no-fork* ]]
	expected=$output
	ucow help litmus
	[ "$status" -eq 0 ]
	[ "$output" = "$expected" ]
}

@test "help knows bench" {
	ucow help bench
	[ "$status" -eq 0 ]
	[[ $output == *--quick* ]]
}

@test "bench: rows whose sides check what they have done" {
	ucow bench --quick memcg-charge policy-held-pages policy-locked-pages
	[ "$status" -eq 0 ]
	[[ $output == *memcg-charge* && $output != *failed:* && $output != *skipped:* ]]
	[ "$(grep -c '^[a-z-]* *ns ' <<<"$output")" -eq 3 ]
}

@test "no command is a usage error" {
	ucow
	[ "$status" -eq 2 ]
	[ -z "$output" ]
	[[ $stderr == *Usage* ]]
}

@test "an unknown command is named" {
	ucow lithmus
	[ "$status" -eq 2 ]
	[ -z "$output" ]
	[[ $stderr == *lithmus* ]]
	ucow help lithmus
	[ "$status" -eq 2 ]
	[[ $stderr == *lithmus* ]]
}

@test "help knows explore" {
	ucow explore --help
	[ "$status" -eq 0 ]
	[[ $output == *--bound* && $output == *--replay* ]]
	expected=$output
	ucow help explore
	[ "$status" -eq 0 ]
	[ "$output" = "$expected" ]
}

@test "options before the command are the program's own" {
	ucow --policy all litmus
	[ "$status" -eq 2 ]
	[[ $stderr == *--policy* ]]
}

@test "help takes one command" {
	ucow help litmus bench
	[ "$status" -eq 2 ]
}

@test "output that cannot be written is not success" {
	[ -w /dev/full ] || skip "no /dev/full"
	run --separate-stderr bash -c '"$1" help >/dev/full' - "$UCOW"
	[ "$status" -eq 2 ]
	[[ $stderr == *"cannot be written"* ]]
}
