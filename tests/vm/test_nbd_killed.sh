#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD devices that lose their server, or are taken away, while they are read.
. "$(dirname "$0")/nbd.sh"

cairnd_start a fill.deadline=2 # what was on its way to a dead worker is asked again 10 s later

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

that_reads_go_on_after_the_worker_was_killed() {
	local dev before
	dev=$(cairn attach "$U/fio" --name fio)
	load_start "$dev"
	kill -KILL "$(worker_pid)"
	before=$(load_count ok)
	wait_until 60 load_is_over $((before + 20)) || fail "reads stopped"
	load_stop 60
	assert_eq "$(load_count error)" 0 "reads that failed"
	assert_connected "${dev#/dev/}"
	fio --name=r --filename="$dev" --readonly --size=16M --bs=16k --rw=read --verify=crc32c \
		--verify_fatal=1 --ioengine=psync >"$T/fio" 2>&1 || fail "$(tail -20 "$T/fio")"
	cairn detach fio
	assert_connected ''
}

that_a_mount_outlives_its_worker() {
	cairn mount "$U/ext4" "$MNT"
	kill -KILL "$(worker_pid)"
	drop_caches
	assert_tree "$MNT"
	cairn umount "$MNT"
	assert_connected ''
}

that_a_daemon_killed_under_load_leaves_a_device_that_the_next_one_takes_away() {
	local dev
	dev=$(cairn attach "$U/fio" --name fio)
	load_start "$dev"
	cairnd_kill
	cairnd_launch a
	assert_connected ''
	load_stop 60
	dev=$(cairn attach "$U/fio" --name fio)
	dd if="$dev" of=/dev/null bs=1M count=2 status=none
	cairn detach fio
	assert_connected ''
}

run_tests
