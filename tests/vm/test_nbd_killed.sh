#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD devices that lose their server, or are taken away, while they are read.
. "$(dirname "$0")/nbd.sh"

cairnd_start a fill.deadline=2

that_detach_under_load_is_refused_and_reads_go_on() {
	local dev before
	dev=$(cairn attach "$U/fio" --name fio)
	exec 7<"$dev"
	load_start "$dev"
	assert_fails 'in use|busy|open' cairn detach fio
	before=$(load_count ok)
	wait_until 20 load_is_over $((before + 5)) || fail "reads stopped"
	load_stop
	exec 7<&-
	assert_eq "$(load_count error)" 0 "reads that failed"
	cairn detach fio
	assert_connected ''
}

that_a_forced_detach_under_load_fails_reads_and_hangs_nobody() {
	local dev
	dev=$(cairn attach "$U/fio" --name fio)
	exec 7<"$dev"
	load_start "$dev"
	timeout 20 "$CAIRN" --socket "$T/d/a/c.sock" detach fio --force
	wait_until 20 grep -q error "$T/load" || fail "reads go on"
	load_stop
	exec 7<&-
	wait_until 10 eval '[ -z "$(nbd_connected)" ]' || fail "$(nbd_connected) stays connected"
	dev=$(cairn attach "$U/fio" --name fio)
	dd if="$dev" of=/dev/null bs=1M count=2 status=none
	cairn detach fio
}

that_a_forced_detach_of_a_mounted_device_fails_reads_and_lets_the_mount_go() {
	cairn mount "$U/ext4" "$MNT" --name fs
	timeout 30 "$CAIRN" --socket "$T/d/a/c.sock" detach fs --force
	drop_caches
	refute timeout -k 5 30 cat "$MNT/big" >/dev/null
	umount "$MNT"
	wait_until 10 eval '[ -z "$(nbd_connected)" ]' || fail "$(nbd_connected) stays connected"
}

# Readers that compare what they read past the page cache: a mounted ext4, a mounted erofs, a device.
compare_start() {
	local fs
	mkdir -p "$T/erofs" "$T/ext4"
	for fs in erofs ext4; do
		cairn mount "$U/$fs" "$T/$fs" --name $fs
		assert_tree "$T/$fs"
	done
	[ -e "$T/big" ] || cp "$T/erofs/big" "$T/big"
	DEV=$(cairn attach "$U/fio" --name fio)
	rm -f "$T/stop"
	"$BUILD/system/compare_reads" "$T/stop" 4 "$T/erofs/big" "$T/big" "$T/ext4/big" "$T/big" \
		"$DEV" "$(echo "$U_DIR"/fio.*.data)" >"$T/readers" 2>&1 &
	echo $! >"$T/readers.pid"
}
compare_stop() {
	touch "$T/stop"
	wait_until 30 pid_gone "$(cat "$T/readers.pid")" || fail "a read hangs"
	note "readers: $(cat "$T/readers")"
	grep -q ' errors=0 wrong=0 ' "$T/readers" || fail "$(cat "$T/readers")"
	assert_le 50 "$(sed -n 's/^reads=\([0-9]*\) .*/\1/p' "$T/readers")" "reads that were compared"
	wait_until 10 nobody_waits_for_good || fail "tasks in D: $(tasks_in_d)"
	cairn umount "$T/erofs"
	cairn umount "$T/ext4"
	cairn detach fio
	assert_connected ''
}
tasks_in_d() { cat /proc/[0-9]*/task/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]* (.*)\) D .*/\1/p'; }
nobody_waits_for_good() { [ -z "$(tasks_in_d)" ]; }

that_readers_see_nothing_of_workers_that_are_killed() {
	local w killed=0 i
	compare_start
	for i in $(seq 200); do
		[ $killed -lt 15 ] || break
		sleep "0.$((RANDOM % 8))"
		w=$(worker_pid) || continue
		if kill -KILL "$w" 2>/dev/null; then killed=$((killed + 1)); fi
	done
	wait_until 30 cairn status --json || fail "no worker serves"
	compare_stop
	refute grep -q 'connections of a device died' "$T/d/a/log" # none was made anew
	assert_le 15 "$(status .worker_restarts)" "restarts of the worker"
}

that_readers_see_nothing_of_upgrades() {
	local said gaps= i
	compare_start
	for i in 1 2 3; do
		said=$(cairn upgrade)
		gaps+=" $(sed 's/.*gap \([0-9]*\) ms/\1/' <<<"$said")"
	done
	compare_stop
	note "gaps of three upgrades in the guest, ms:$gaps"
	assert_eq "$(status .worker_before.planned)" true "the last worker's end was planned"
}

that_a_mount_outlives_its_worker() {
	cairn mount "$U/ext4" "$MNT"
	kill -KILL "$(worker_pid)"
	drop_caches
	assert_tree "$MNT"
	cairn umount "$MNT"
	assert_connected ''
}

that_a_daemon_killed_under_load_leaves_a_device_that_the_next_one_serves() {
	local dev before
	# reads wait for the next daemon for the deadline and 10 s, and loading the observer takes long here
	D=k
	cairnd_start k fill.deadline=15 observe.enable=off
	dev=$(cairn attach "$U/fio" --name fio)
	load_start "$dev"
	cairnd_kill k
	before=$(load_count ok)
	cairnd_launch k
	assert_connected "${dev#/dev/}"
	wait_until 90 load_is_over $((before + 5)) || fail "reads stopped"
	load_stop 60
	assert_eq "$(load_count error)" 0 "reads that failed"
	cairn detach fio
	cairnd_stop k
	assert_connected ''
}

run_tests
