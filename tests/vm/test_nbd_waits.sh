#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# on_deadline = wait on a kernel NBD device: while its origin is silent readers wait, those that
# read through the page cache can be killed, and the device and the daemon go at any time.
. "$(dirname "$0")/nbd.sh"

origin_silent() { trap origin_back EXIT; kill -STOP "$(cat "$T/origin.pid")"; }
origin_back() { kill -CONT "$(cat "$T/origin.pid")"; }
nobody_waits() { [ "$(image fio .reads_waiting)" = 0 ]; }
patient() { [ "$(image "$1" '.reads_waiting > 0 and .deadlines_passed > 0')" = true ]; }

setsid "$BUILD/bench/origin" "$U_DIR" >"$T/origin.url" 2>"$T/origin.log" </dev/null &
echo $! >"$T/origin.pid"
disown $!
wait_until 20 test -s "$T/origin.url"
H=$(cat "$T/origin.url")
cairnd_start a fill.deadline=2 fill.readahead=0

that_a_read_waits_until_the_origin_is_back_and_a_buffered_one_can_be_killed() {
	local dev reader
	dev=$(cairn attach "$H/fio" --name fio --on-deadline wait)
	assert_says "$(cairn status)" 'on_deadline: wait'
	exec 8<"$dev" # as a mount holds it: the last to close a device waits for its reads
	origin_silent
	dd if="$dev" of=/dev/null bs=64k count=4 skip=40 2>/dev/null & # through the page cache, as of a file
	reader=$!
	wait_until 40 patient fio || fail "no read waits: $(image fio .)"
	kill -KILL $reader
	wait_until 10 pid_gone $reader || fail "a killed reader still waits: $(cat /proc/$reader/wchan)"
	dd if="$dev" of="$T/got" bs=64k count=4 skip=200 iflag=direct 2>"$T/dd" &
	reader=$!
	sleep 8 # several deadlines
	pid_alive $reader || fail "a reader did not wait: $(cat "$T/dd")"
	origin_back
	wait $reader || fail "a read failed that had waited: $(cat "$T/dd")"
	dd if="$(echo "$U_DIR"/fio.*.data)" of="$T/want" bs=64k count=4 skip=200 2>/dev/null
	cmp "$T/got" "$T/want"
	wait_until 20 nobody_waits
	assert_eq "$(image fio .read_errors)" 0 "reads that failed"
	exec 8<&-
	cairn detach fio
	assert_connected ''
}

that_a_device_and_the_daemon_go_while_reads_wait() {
	local dev reader
	dev=$(cairn attach "$H/fio" --name fio --on-deadline wait)
	origin_silent
	dd if="$dev" of="$T/got" bs=64k count=4 skip=100 iflag=direct 2>"$T/dd" &
	reader=$!
	wait_until 40 patient fio || fail "no read waits"
	assert_fails 'open' cairn detach fio
	cairn detach fio --force
	wait_until 20 pid_gone $reader || fail "detach --force left a reader waiting"
	assert_eq "$(stat -c %s "$T/got")" 0 "bytes that it got"
	origin_back
	dev=$(cairn attach "$H/fio" --name fio --on-deadline wait)
	origin_silent
	dd if="$dev" of="$T/got" bs=64k count=4 skip=150 iflag=direct 2>"$T/dd" &
	reader=$!
	wait_until 40 patient fio || fail "no read waits"
	cairnd_stop
	wait_until 20 pid_gone $reader || fail "the daemon's end left a reader waiting"
	assert_connected ''
}

run_tests
