#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD devices: what they hold, and how they come and go.
. "$(dirname "$0")/nbd.sh"

cairnd_start a

that_an_attached_device_is_the_kernels_own_and_holds_the_image() {
	local dev
	dev=$(cairn attach "$U/fio" --name fio)
	assert_says "$dev" '^/dev/nbd[0-9]+$'
	assert_eq "$(image fio .way)" nbd "way in status"
	assert_eq "$(blockdev --getro "$dev")" 1 "read only"
	assert_eq "$(blockdev --getsize64 "$dev")" $((16 << 20)) "length"
	assert_says "$(cat "/sys/block/${dev#/dev/}/backend")" "$(image fio .digest | cut -c 1-40)"
	assert_eq "$(cat /sys/module/nbd/parameters/max_part)" 0 "partitions scanned"
	fio --name=r --filename="$dev" --readonly --size=16M --bs=16k --rw=randread --verify=crc32c \
		--verify_fatal=1 --direct=1 --ioengine=libaio --iodepth=16 >"$T/fio" 2>&1 ||
		fail "$(tail -20 "$T/fio")"
	grep -q 'READ:.*io=16' "$T/fio" || fail "fio read less than the image: $(cat "$T/fio")"
	cairn detach fio
	assert_connected ''
}

that_an_erofs_image_is_mounted_and_every_file_is_the_same() {
	cairn mount "$U/erofs" "$MNT"
	assert_says "$(findmnt -no SOURCE,FSTYPE "$MNT")" '^/dev/nbd[0-9]+ +erofs'
	assert_tree "$MNT"
	cairn umount "$MNT"
	assert_connected ''
}

that_an_ext4_image_is_mounted_and_every_file_is_the_same() {
	cairn mount "$U/ext4" "$MNT"
	assert_says "$(findmnt -no SOURCE,FSTYPE "$MNT")" '^/dev/nbd[0-9]+ +ext4'
	assert_tree "$MNT"
	cairn umount "$MNT"
	assert_connected ''
}

that_a_mounted_device_is_not_detached_without_force() {
	cairn mount "$U/erofs" "$MNT" --name fs
	assert_fails "$MNT" cairn detach fs
	assert_tree "$MNT"
	cairn umount "$MNT"
	assert_connected ''
}

run_tests
