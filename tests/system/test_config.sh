#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Configuration and the command line: defaults that work, errors that name the thing and the remedy.
# any event loop
. "$(dirname "$0")/lib.sh"

check() { timeout 20 "$CAIRND" --check-config -c "$T/x.ini"; }
ini() { printf '%s\n' "$@" >"$T/x.ini"; }

that_an_empty_file_is_a_right_configuration() {
	ini ''
	check
}

that_a_missing_file_is_named() { assert_fails "$T/nosuch" timeout 20 "$CAIRND" --check-config -c "$T/nosuch"; }

that_an_unknown_key_is_named_with_its_line() {
	ini '[daemon]' 'log_level = info' 'log_levle = info'
	assert_fails 'log_levle' check
	assert_says "$SAID" 'x\.ini:3|line 3'
}

that_an_unknown_section_is_named() {
	ini '[demon]' 'log_level = info'
	assert_fails 'demon' check
}

that_a_value_out_of_range_is_named_with_what_is_allowed() {
	ini '[fill]' 'threads = 100000'
	assert_fails 'threads' check
	assert_says "$SAID" '256'
	ini '[store]' 'size = 1'
	assert_fails 'size' check
	assert_says "$SAID" '64'
	ini '[daemon]' 'event_loop = kqueue'
	assert_fails 'event_loop' check
	assert_says "$SAID" 'io_uring'
}

that_a_value_that_is_no_number_is_named() {
	ini '[fill]' 'threads = many'
	assert_fails 'threads' check
	ini '[store]' 'size = 10XB'
	assert_fails 'size' check
}

that_a_socket_path_too_long_for_a_socket_is_refused() {
	ini '[nbd]' "socket = /tmp/$(printf 'x%.0s' $(seq 130))"
	assert_fails 'socket' check
}

that_a_secret_in_the_file_is_refused_and_not_repeated() {
	ini '[azure]' 'key = c2VjcmV0c2VjcmV0c2VjcmV0'
	assert_fails 'key_file' check
	refute grep -q c2VjcmV0 <<<"$SAID"
}

that_the_daemon_does_not_start_with_a_wrong_file() {
	ini '[daemon]' 'nonsense = 1'
	assert_fails 'nonsense' timeout 20 "$CAIRND" -c "$T/x.ini"
}

that_sizes_take_units() {
	ini '[store]' 'size = 1.5TiB' '[fill]' 'memory = 128MiB'
	check
}

that_a_missing_key_file_is_named() {
	cairnd_config nokey "azure.account=a" "azure.key_file=$T/no-such-key"
	assert_fails 'no-such-key' timeout 20 "$CAIRND" -c "$T/d/nokey/cairnd.ini"
}

that_every_command_has_help() {
	local c
	for c in 'image build' 'image push' 'image seal' 'image inspect' 'image verify' export attach detach mount umount status; do
		# shellcheck disable=SC2086
		timeout 10 "$CAIRN" $c --help >"$T/help" || fail "cairn $c --help failed"
		assert_says "$(cat "$T/help")" "usage"
		assert_says "$(cat "$T/help")" "${c##* }"
	done
	timeout 10 "$CAIRN" --help | grep -q image
	timeout 10 "$CAIRND" --help | grep -q check-config
	timeout 10 "$CAIRN" --version | grep -qE '[0-9]+\.[0-9]+'
}

that_wrong_use_exits_with_2() {
	local rc
	for c in '' 'nonsense' 'image' 'image nonsense' 'image push onlyone' 'status --nonsense' 'mount only-url'; do
		rc=0
		# shellcheck disable=SC2086
		timeout 10 "$CAIRN" $c >"$T/o" 2>"$T/e" </dev/null || rc=$?
		assert_eq $rc 2 "exit code of 'cairn $c'"
		[ -s "$T/e" ] || fail "'cairn $c' said nothing"
	done
}

that_no_daemon_is_said_with_the_socket_and_the_remedy() {
	assert_fails "$T/none.sock" timeout 10 "$CAIRN" --socket "$T/none.sock" status
	assert_says "$SAID" 'cairnd'
	assert_fails "$T/env.sock" env CAIRN_SOCKET="$T/env.sock" timeout 10 "$CAIRN" status
}

that_the_control_socket_is_for_its_owner_only() {
	cairnd_start a daemon.control_group=no-such-group
	assert_eq "$(stat -c %a "$T/d/a/c.sock")" 600 "mode of the control socket"
}

that_the_control_group_may_ask_and_not_change() {
	local in_group=(setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all)
	need_root
	need_tool setpriv
	head -c 65536 /dev/urandom >"$T/blob"
	cairnd_start g daemon.control_group=nogroup
	assert_eq "$(stat -c '%a %G' "$T/d/g/c.sock")" '660 nogroup' "the control socket"
	"${in_group[@]}" "$CAIRN" --socket "$T/d/g/c.sock" status >"$T/stdout"
	assert_fails 'needs root' "${in_group[@]}" "$CAIRN" --socket "$T/d/g/c.sock" export "file://$T/blob"
	assert_fails 'needs root' "${in_group[@]}" "$CAIRN" --socket "$T/d/g/c.sock" detach blob
	D=g cairn export "file://$T/blob"
	D=g cairnd_stop
}

that_a_second_daemon_on_the_same_socket_is_refused() {
	mkdir -p "$T/store2"
	cairnd_config b "daemon.control_socket=$T/d/a/c.sock" "store.path=$T/store2"
	assert_fails 'c\.sock' timeout 20 "$CAIRND" -c "$T/d/b/cairnd.ini"
	status .version >/dev/null
}

that_a_stale_socket_of_a_killed_daemon_is_no_obstacle() {
	cairnd_kill a
	[ -S "$T/d/a/c.sock" ] || fail "no stale socket to try with"
	cairnd_launch a
	status .version | grep -qE '[0-9]'
}

that_a_clean_stop_ends_both_processes_and_removes_the_sockets() {
	local w
	w=$(worker_pid)
	cairnd_stop
	pid_gone "$w" || fail "the worker outlived the supervisor"
	[ ! -e "$T/d/a/c.sock" ] || fail "the control socket is still there"
}

run_tests
