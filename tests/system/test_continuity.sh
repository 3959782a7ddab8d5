#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# The death and the upgrade of the supervisor, under readers who compare every byte.
. "$(dirname "$0")/lib.sh"

# Readers of DEVICE until load_stop, compared with IMAGE.
load_start() {
	rm -f "$T/load" "$T/load.stop"
	"$ROOT/tests/system/compare_reads.py" "$1" "$2" "$T/load" "$T/load.stop" >"$T/load.said" 2>&1 &
	echo $! >"$T/load.pid"
	load_goes_on
}
load_reads() { cut -d ' ' -f 1 "$T/load" 2>/dev/null || echo 0; }
load_is_over() { [ "$(load_reads)" -gt "$1" ]; }
load_goes_on() { wait_until 30 load_is_over $(($(load_reads) + 20)) || fail "reads stopped: $(cat "$T/load" "$T/load.said")"; }
load_stop() {
	touch "$T/load.stop"
	wait_until 30 pid_gone "$(cat "$T/load.pid")" || fail "a read hangs"
	assert_eq "$(cut -d ' ' -f 2,3 "$T/load")" "0 0" "failed and wrong reads ($(head -3 "$T/load.said"))"
	note "$(awk '{ print $1 " reads compared, the longest took " $4 " ms" }' "$T/load")"
}

supervisor_kill() {
	kill -KILL "$(supervisor_pid)"
	wait_until 10 pid_gone "$(supervisor_pid)" || fail "the supervisor survived SIGKILL"
}

# Another test's mount namespace may hold a copy of ours for a while.
umount_all() { cairn umount "$MNT" 2>/dev/null || wait_until 60 cairn detach fs || fail "the device stays: $(cairn detach fs 2>&1)"; }

assert_nothing_left() {
	wait_until 30 eval '[ -z "$(loops_of_scratch; mounts_of_scratch)" ]' || fail "left: $(loops_of_scratch; mounts_of_scratch)"
}

that_a_mount_outlives_its_supervisor_and_the_next_one_takes_over() {
	need_device
	need_filesystem erofs
	local dev w
	cairn mount "$U/fs" "$MNT" --name fs
	dev=$(image fs .device)
	w=$(worker_pid)
	load_start "$dev" "$T/fs"
	for i in 1 2; do
		supervisor_kill
		load_goes_on
		drop_caches
		diff -r "$T/tree" "$MNT"
		assert_eq "$(image fs .device)" "$dev" "the device, said by a worker alone"
		cairnd_launch a
		load_goes_on
		assert_eq "$(status .supervisor.takeovers)" "$i" "supervisors before this one"
		assert_eq "$(status .supervisor.pid)" "$(supervisor_pid)" "the supervisor"
		assert_eq "$(image fs .device)" "$dev" "the device"
	done
	w=$(worker_pid)
	kill -KILL "$w"
	load_goes_on
	wait_until 20 cairn status
	refute [ "$(worker_pid)" = "$w" ]
	drop_caches
	diff -r "$T/tree" "$MNT"
	load_stop
	umount_all
	assert_eq "$(status '.images | length')" 0 "exports left"
	assert_nothing_left
}

that_a_device_is_attached_and_detached_after_a_take_over() {
	need_device
	local one two
	one=$(cairn attach "$U/img" --name one)
	supervisor_kill
	assert_fails 'supervisor' cairn attach "$U/fs" --name two
	cairnd_launch a
	two=$(cairn attach "$U/fs" --name two)
	cmp -n "$LEN" "$one" "$T/img"
	cmp -n "$(stat -c %s "$T/fs")" "$two" "$T/fs"
	cairn detach one
	cairn detach two
	assert_nothing_left
}

that_a_helper_that_dies_after_a_take_over_is_replaced() {
	need_device
	local dev helper
	dev=$(cairn attach "$U/img" --name img)
	helper=$(cat "$T/d/a/run/attach/img/nbdfuse.pid")
	supervisor_kill
	cairnd_launch a
	kill -KILL "$helper"
	wait_until 20 cmp -n "$LEN" "$dev" "$T/img" || fail "the device does not come back"
	refute [ "$(cat "$T/d/a/run/attach/img/nbdfuse.pid")" = "$helper" ]
	cairn detach img
	assert_nothing_left
}

that_a_worker_without_supervisor_ends_when_told_and_the_next_cairnd_serves_its_exports() {
	local w
	cairn export "$U/img" --name img >/dev/null
	w=$(worker_pid)
	supervisor_kill
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	kill -TERM "$w"
	wait_until 20 pid_gone "$w" || fail "the worker does not end"
	cairnd_launch a
	assert_eq "$(image img .name)" img "the export of before"
	cairn detach img
}

that_devices_come_back_after_both_were_killed() {
	need_device
	local dev
	dev=$(cairn attach "$U/img" --name img)
	cairnd_kill
	cairnd_launch a
	assert_eq "$(image img .device)" "$dev" "the device"
	wait_until 20 cmp -n "$LEN" "$dev" "$T/img" || fail "the device does not come back"
	cairn detach img
	assert_nothing_left
}

that_a_worker_that_does_not_answer_is_replaced() {
	need_device
	local dev w
	dev=$(cairn attach "$U/img" --name img)
	w=$(worker_pid)
	kill -STOP "$w"
	supervisor_kill
	cairnd_launch a
	wait_until 10 pid_gone "$w" || fail "the stopped worker is there still"
	wait_until 20 cmp -n "$LEN" "$dev" "$T/img" || fail "the device does not come back"
	cairn detach img
	assert_nothing_left
}

# A daemon under a stand-in for systemd: its pid is in the same place, and it is started again.
managed_start() {
	cairnd_config "$1"
	setsid "$ROOT/tests/system/fdstore.py" "$T/d/$1" "$CAIRND" -c "$T/d/$1/cairnd.ini" >>"$T/d/$1/log" 2>&1 </dev/null &
	echo $! >"$T/d/$1/manager"
	disown $!
	wait_until 30 cairnd_is_up "$1" || fail "it does not start"
}
managed_is_up_again() { [ "$(cat "$T/d/$D/starts")" = "$1" ] && cairnd_is_up "$D"; }

that_under_systemd_the_death_of_both_at_once_costs_no_read() {
	need_device
	need_filesystem erofs
	local dev n=1
	D=s
	managed_start s
	cairn mount "$U/fs" "$MNT" --name fs
	dev=$(image fs .device)
	load_start "$dev" "$T/fs"
	for n in 2 3 4; do
		kill -KILL "$(supervisor_pid)" "$(worker_pid)"
		wait_until 30 managed_is_up_again $n || fail "not up for the ${n}th time"
		load_goes_on
	done
	kill -KILL "$(supervisor_pid)"
	wait_until 30 managed_is_up_again 5 || fail "not up after the supervisor alone was killed"
	load_goes_on
	drop_caches
	diff -r "$T/tree" "$MNT"
	load_stop
	assert_eq "$(image fs .device)" "$dev" "the device"
	umount_all
	kill -TERM "$(cat "$T/d/s/manager")"
	wait_until 30 pid_gone "$(cat "$T/d/s/manager")" || fail "it does not stop"
	assert_eq "$(cat "$T/d/s/ended") $(cat "$T/d/s/stored")" "0 0" "exit status and descriptors left in the store"
	assert_nothing_left
}

that_ten_upgrades_of_both_cost_no_read() {
	need_device
	need_filesystem erofs
	local dev s w
	D=u
	mkdir -p "$T/bin"
	cp "$CAIRND" "$T/bin/cairnd"
	CAIRND=$T/bin/cairnd cairnd_start u
	cairn mount "$U/fs" "$MNT" --name fs
	dev=$(image fs .device)
	s=$(supervisor_pid)
	load_start "$dev" "$T/fs"
	for i in $(seq 10); do
		w=$(worker_pid)
		cp "$ROOT/build/cairnd" "$T/bin/cairnd.new"
		mv "$T/bin/cairnd.new" "$T/bin/cairnd"
		cairn upgrade >"$T/said"
		refute kill -0 "$w" 2>/dev/null
		assert_eq "$(readlink "/proc/$s/exe")" "$T/bin/cairnd" "the program of the supervisor"
		assert_eq "$(status '"\(.supervisor.pid) \(.supervisor.takeovers)"')" "$s $i" "the supervisor"
	done
	load_goes_on
	kill -KILL "$(worker_pid)" # its parent still
	load_goes_on
	drop_caches
	diff -r "$T/tree" "$MNT"
	load_stop
	umount_all
	cairnd_stop u
	assert_nothing_left
}

that_a_program_that_is_broken_or_knows_less_changes_nothing() {
	local s w
	D=b
	mkdir -p "$T/bin"
	cp "$CAIRND" "$T/bin/b"
	CAIRND=$T/bin/b cairnd_start b
	cairn export "$U/img" --name img >/dev/null
	s=$(supervisor_pid) w=$(worker_pid)
	rm "$T/bin/b" # its old file stays, as a package's does
	printf '#!/bin/sh\nkill -SEGV $$\n' >"$T/bin/b"
	chmod +x "$T/bin/b"
	assert_fails 'check-upgrade' cairn upgrade
	printf '#!/bin/sh\necho "cairnd: unrecognized option $*" >&2; exit 2\n' >"$T/bin/b"
	assert_fails 'unrecognized option' cairn upgrade
	rm "$T/bin/b"
	assert_fails 'No such file' cairn upgrade
	cp "$ROOT/build/cairnd" "$T/bin/b"
	printf '[nbd]\nnonsense = 1\n' >>"$T/d/b/cairnd.ini"
	assert_fails 'nonsense' cairn upgrade
	assert_eq "$(supervisor_pid) $(worker_pid)" "$s $w" "the processes"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop b
}

that_a_clean_stop_leaves_nothing_to_follow() {
	cairn export "$U/img" --name img >/dev/null
	cairnd_stop
	assert_eq "$(find "$T/d/a/run" -type f ! -name cairnd.lock)" "" "files in runtime_dir"
	cairnd_launch a
	assert_eq "$(status '"\(.supervisor.takeovers) \(.images | length)"')" "0 0" "takeovers and exports"
}

LEN=$((9 * 1024 * 1024 + 777))
U=file://$T
random_file "$T/img" "$LEN"
mkdir -p "$T/tree"
for i in 1 2 3 4; do random_file "$T/tree/file$i" $((i * 700000)) "$i"; done
cairn image build "$T/tree" "$T/fs" --fs erofs >/dev/null 2>&1
cairnd_start a
run_tests
