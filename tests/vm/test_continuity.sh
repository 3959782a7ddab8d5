#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD devices under a supervisor that is killed, followed and upgraded.
. "$(dirname "$0")/nbd.sh"

cairnd_start a fill.deadline=2

supervisor_kill() {
	kill -KILL "$(supervisor_pid)"
	wait_until 10 pid_gone "$(supervisor_pid)" || fail "the supervisor survived SIGKILL"
}

load_goes_on() {
	local before
	before=$(load_count ok)
	wait_until 60 load_is_over $((before + 10)) || fail "reads stopped"
}

# Nobody waits in the kernel for a device.
assert_no_d_state() {
	wait_until 10 eval '! grep -lE "^State:[[:space:]]*D" /proc/[0-9]*/status 2>/dev/null | grep -q .' ||
		fail "in D state: $(grep -lE '^State:[[:space:]]*D' /proc/[0-9]*/status | xargs -r sed -n 1p 2>/dev/null)"
}

that_a_device_outlives_its_supervisor_and_the_next_one_has_it() {
	local dev
	dev=$(cairn attach "$U/fio" --name fio)
	load_start "$dev"
	supervisor_kill
	load_goes_on
	cairnd_launch a
	load_goes_on
	kill -KILL "$(worker_pid)"
	load_goes_on
	cairn upgrade
	load_goes_on
	load_stop 60
	assert_eq "$(load_count error)" 0 "reads that failed"
	fio --name=r --filename="$dev" --readonly --size=8M --bs=16k --rw=read --verify=crc32c \
		--verify_fatal=1 --ioengine=psync >"$T/fio" 2>&1 || fail "$(tail -20 "$T/fio")"
	assert_eq "$(image fio .device)" "$dev" "the device"
	cairn detach fio
	assert_connected ''
	assert_no_d_state
}

# Without systemd nobody keeps the connections: they are made anew by RECONFIGURE.
that_a_mount_outlives_both_processes() {
	local before
	cairn mount "$U/ext4" "$MNT" --name fs
	before=$(nbd_connected | xargs)
	cairnd_kill
	cairnd_launch a
	drop_caches
	assert_tree "$MNT"
	assert_connected "$before"
	cairn umount "$MNT"
	assert_connected ''
	assert_no_d_state
}

run_tests
