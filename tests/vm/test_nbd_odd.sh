#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD where somebody loaded the module otherwise, and notes of devices that are not true.
. "$(dirname "$0")/nbd.sh"

# 4 MiB with a DOS partition table: two partitions of 1 MiB.
parts_make() {
	random_file "$1" 4194304 parts
	printf '\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x08\0\0\0\0\0\0\x83\0\0\0\0\x10\0\0\0\x08\0\0%32s\x55\xaa' '' | tr ' ' '\0' |
		dd of="$1" bs=1 seek=446 conv=notrunc status=none
}

that_a_module_that_scans_partitions_breaks_nothing() {
	local dev
	modprobe nbd max_part=16 nbds_max=2
	parts_make "$T/parts"
	cairnd_start a
	cairn attach "file://$T/parts" --name one >/dev/null
	cairn attach "file://$T/parts" --name two >/dev/null
	dev=$(cairn attach "file://$T/parts" --name three) # beyond nbds_max
	assert_eq "$dev" /dev/nbd2 "the third device"
	assert_eq "$(cat /sys/block/nbd2/dev | cut -d: -f2)" 64 "its minor"
	for dev in /dev/nbd0 /dev/nbd1 /dev/nbd2; do cmp "$T/parts" "$dev"; done
	wait_until 10 eval '[ -b /dev/nbd1p2 ]' || skip "this kernel scanned no partitions"
	exec 7</dev/nbd1p2
	assert_fails 'open in process|mounted|held' cairn detach two
	exec 7<&-
	assert_fails 'nbd900000.*lower number' cairn attach "file://$T/parts" --name four --device /dev/nbd900000
	for dev in one two three; do cairn detach "$dev"; done
	cairnd_drop a
	assert_connected ''
	rmmod nbd
}

that_a_note_of_another_image_or_pid_takes_nothing_away() {
	local note change
	cairnd_start a
	cairn attach "$U/fio" --name fio >/dev/null
	note=$(find "$T/d/a" -name nbd.json)
	cp "$note" "$T/note"
	cairnd_kill a
	find "$T/d/a" -name supervisor.state -delete # nobody to follow: notes are all there is
	for change in 's/"identity":"sha256:./&0/' 's/"pid":/&1/' 's/"boot":"./&x/' 's/}$//'; do
		mkdir -p "$(dirname "$note")"
		sed "$change" "$T/note" >"$note"
		cairnd_launch a
		assert_connected nbd0
		[ ! -e "$note" ] || fail "a note that is not true stays: $change"
		cairnd_stop a
		assert_connected nbd0
	done
	mkdir -p "$(dirname "$note")"
	cp "$T/note" "$note"
	cairnd_launch a
	assert_connected ''
	cairnd_drop a
}

run_tests
