#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Devices and mounts: attach, detach, mount, umount, what is refused and why, and what a crash leaves.
. "$(dirname "$0")/lib.sh"

# Loop devices, FUSE mounts and nbdfuse processes of daemon D: nothing may stay behind.
leftovers() {
	loops_of_scratch
	mounts_of_scratch
	local p
	for p in $(pids_of_scratch); do
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = nbdfuse ]; then echo "nbdfuse $p"; fi
	done
}
assert_nothing_left() {
	wait_until 10 eval '[ -z "$(leftovers)" ]' || fail "left behind: $(leftovers | xargs)"
}

that_an_attached_device_holds_the_image() {
	need_device
	local dev
	dev=$(cairn attach "$U/img" --name img)
	assert_says "$dev" '^/dev/[a-z0-9]+$'
	[ -b "$dev" ] || fail "$dev is no block device"
	assert_eq "$(blockdev --getro "$dev")" 1 "read only"
	assert_eq "$(blockdev --getsize64 "$dev")" $(((LEN + 4095) / 4096 * 4096)) "length of the device"
	cmp -n "$LEN" "$dev" "$T/img"
	assert_eq "$(image img .device)" "$dev" "device in status"
	[ -n "$(image img .way)" ] || fail "status does not say which way it is attached"
	refute dd if=/dev/zero of="$dev" bs=4096 count=1 conv=fsync status=none
	cairn detach img
	assert_nothing_left
}

that_detach_takes_a_device_too() {
	need_device
	cairn detach "$(cairn attach "$U/img" --name img)"
	assert_nothing_left
}

that_attaching_twice_is_one_device_or_a_clear_error() {
	need_device
	local dev again rc=0
	dev=$(cairn attach "$U/img" --name img)
	again=$(cairn attach "$U/img" --name img 2>"$T/err") || rc=$?
	if [ $rc = 0 ]; then
		assert_eq "$again" "$dev" "the device of a second attach"
	else
		assert_says "$(cat "$T/err")" "$dev"
	fi
	assert_eq "$(loops_of_scratch | wc -l)" 1 "loop devices"
	cmp -n 4096 "$dev" "$T/img"
	cairn detach img
	assert_nothing_left
}

that_a_name_in_use_by_another_image_is_refused() {
	cairn export "$U/img" --name taken >/dev/null
	assert_fails 'taken' cairn export "$U/fs" --name taken
	assert_says "$SAID" '--name|detach|another'
	cairn detach taken
}

that_detaching_what_is_not_there_is_named() { assert_fails 'nosuch' cairn detach nosuch; }

that_detach_while_mounted_is_refused_with_the_mount_point() {
	need_device
	need_filesystem erofs
	cairn mount "$U/fs" "$MNT" --name fs
	assert_fails "$MNT" cairn detach fs
	assert_says "$SAID" 'mount'
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	cairn detach fs 2>/dev/null || true # umount may have done so already
	assert_nothing_left
}

that_umount_while_a_file_is_open_is_refused_and_nothing_breaks() {
	need_device
	need_filesystem erofs
	cairn mount "$U/fs" "$MNT" --name fs
	exec 7<"$MNT/file1"
	assert_fails "$MNT" cairn umount "$MNT"
	assert_says "$SAID" 'busy|in use|open'
	cmp "$T/tree/file1" "$MNT/file1"
	exec 7<&-
	cairn umount "$MNT"
	assert_nothing_left
}

that_mounting_on_a_missing_folder_is_named() {
	need_device
	assert_fails "$T/nosuch" cairn mount "$U/fs" "$T/nosuch" --name fs
	cairn detach fs 2>/dev/null || true
	assert_nothing_left
}

that_mounting_on_a_file_is_refused() {
	need_device
	assert_fails "$T/tree/file1" cairn mount "$U/fs" "$T/tree/file1" --name fs
	cairn detach fs 2>/dev/null || true
	assert_nothing_left
}

that_mounting_an_image_without_a_file_system_is_said() {
	need_device
	assert_fails 'file ?system|mount' cairn mount "$U/img" "$MNT" --name img
	refute mountpoint -q "$MNT"
	cairn detach img 2>/dev/null || true
	assert_nothing_left
}

that_umount_of_what_is_not_ours_is_refused() {
	need_root
	mkdir -p "$T/other"
	mount -t tmpfs cairn-other "$T/other"
	assert_fails "$T/other" cairn umount "$T/other"
	mountpoint -q "$T/other" || fail "it was unmounted"
	umount "$T/other"
	assert_fails "$T/tree" cairn umount "$T/tree"
}

that_a_device_whose_export_is_lost_is_detached_by_name_or_device() {
	local dev w
	need_device
	for key in lost device; do
		mkdir -p "$T/lost"
		cairn image push "$T/img" "file://$T/lost/img"
		dev=$(cairn attach "file://$T/lost/img" --name lost)
		rm -r "$T/lost" "$T"/d/a/store/urls/* # the next worker can't open it
		w=$(worker_pid)
		kill -KILL "$w"
		wait_until 20 said_lost
		wait_until 20 cairn status
		assert_eq "$(image lost .name)" "" "the lost export"
		: >"$T/d/a/log"
		if [ $key = device ]; then cairn detach "$dev"; else cairn detach lost; fi
		assert_nothing_left
	done
}
said_lost() { grep -q 'export lost.*name=lost' "$T/d/a/log"; }

that_a_stop_leaves_no_device_behind() {
	need_device
	cairn attach "$U/img" --name img >/dev/null
	cairnd_stop
	assert_nothing_left
	cairnd_launch a
}

that_a_crash_leaves_no_device_behind_after_a_restart() {
	need_device
	cairn attach "$U/img" --name img >/dev/null
	cairn attach "$U/fs" --name fs >/dev/null
	cairnd_kill
	cairnd_launch a
	local n
	# what came back as attached counts as there; everything else must be gone
	for n in $(status '.images[] | select(.device != "" and .device != null) | .name'); do cairn detach "$n"; done
	assert_nothing_left
	local dev
	dev=$(cairn attach "$U/img" --name img)
	cmp -n "$LEN" "$dev" "$T/img"
	cairn detach img
	assert_nothing_left
}

that_a_crash_under_a_mount_can_be_cleaned_up() {
	need_device
	need_filesystem erofs
	cairn mount "$U/fs" "$MNT" --name fs
	cairnd_kill
	cairnd_launch a
	# the mount may be dead or alive, but it must be possible to get rid of it and to mount anew
	if mountpoint -q "$MNT"; then timeout 30 "$CAIRN" --socket "$T/d/a/c.sock" umount "$MNT" || umount -l "$MNT"; fi
	local n
	for n in $(status '.images[] | select(.device != "" and .device != null) | .name'); do cairn detach "$n"; done
	cairn mount "$U/fs" "$MNT" --name again
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	cairn detach again 2>/dev/null || true
	assert_nothing_left
}

need_no_nbd() {
	[ ! -e /sys/module/nbd ] || skip "this kernel has nbd"
	! modinfo nbd >/dev/null 2>&1 || skip "this kernel has an nbd module"
}

that_without_nbd_the_other_way_is_taken_and_said() {
	need_device
	need_no_nbd
	local dev
	dev=$(cairn attach "$U/img" --name img 2>"$T/err")
	assert_says "$dev" '^/dev/loop[0-9]+$'
	assert_says "$(cat "$T/err")" 'attached by nbdfuse.*no nbd module.*modprobe nbd'
	cairn detach img
	assert_fails 'no nbd module' cairn attach "$U/img" --name img --way nbd
	assert_fails 'no nbd module' cairn attach "$U/img" --name img --device /dev/nbd0
	assert_eq "$(status '.images | length')" 0 "exports left"
	assert_nothing_left
}

that_a_device_or_queues_that_cannot_be_are_refused() {
	need_device
	assert_fails '/dev/nbd0' cairn attach "$U/img" --name img --device /dev/sda
	assert_fails '/dev/nbd0' cairn mount "$U/fs" "$MNT" --name fs --device nbd1
	assert_fails '1 to 64' cairn attach "$U/img" --name img --queues 65
	assert_fails '1 to 64' cairn attach "$U/img" --name img --queues two
	assert_fails 'with the way nbd only' cairn attach "$U/img" --name img --way nbdfuse --device /dev/nbd3
	assert_eq "$(status '.images | length')" 0 "exports left"
	assert_nothing_left
}

that_two_daemons_live_side_by_side() {
	need_device
	local a b
	cairnd_start b
	a=$(D=a cairn attach "$U/img" --name img)
	b=$(D=b cairn attach "$U/img" --name img)
	[ "$a" != "$b" ] || fail "both say $a"
	cmp -n "$LEN" "$a" "$T/img"
	cmp -n "$LEN" "$b" "$T/img"
	D=b cairn detach img
	cmp -n "$LEN" "$a" "$T/img"
	D=a cairn detach img
	cairnd_stop b
	assert_nothing_left
}

as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }

that_a_daemon_without_root_exports_and_says_why_it_cannot_attach() {
	need_root
	need_tool setpriv
	mkdir -p "$T/bin"
	cp "$CAIRND" "$CAIRN" "$T/bin/"
	D=n
	mkdir -p "$T/d/n"
	cp "$T/azurite/key" "$T/d/n/key"
	cairnd_config n "azure.key_file=$T/d/n/key"
	chown -R 65534:65534 "$T/d/n"
	: >"$T/d/n/log"
	CAIRND=$T/bin/cairnd cairnd_launch n setpriv --reuid=65534 --regid=65534 --clear-groups
	assert_eq "$(stat -c %u "/proc/$(worker_pid)")" 65534 "user of the worker"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_eq "$(as_nobody timeout 20 "$T/bin/cairn" --socket "$T/d/n/c.sock" status --json | jq -r '.images[0].name')" \
		img "what nobody's own client sees"
	assert_fails 'root|privilege|permi|CAP_SYS_ADMIN|/dev/fuse|/dev/loop' cairn attach "$U/img" --name img
	assert_says "$(cairn status --json | jq -r '.images[0].device // ""')x" '^x$'
	cairnd_stop
	assert_nothing_left
}

LEN=$((9 * 1024 * 1024 + 777))
random_file "$T/img" "$LEN"
mkdir -p "$T/tree/sub"
for i in 1 2 3; do random_file "$T/tree/file$i" $((i * 100000)) "$i"; done
cp "$T/tree/file1" "$T/tree/sub/"
azurite_start
cairn image push "$T/img" "$U/img"
cairn image build "$T/tree" "$T/fs" --fs erofs
cairn image push "$T/fs" "$U/fs"
cairnd_start a
run_tests
