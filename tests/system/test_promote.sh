#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Promotion: a complete image is read from the store's file, past the worker, and stays there.
# any event loop
. "$(dirname "$0")/lib.sh"

SWAPS=100

promoted() { image "$1" .promoted; }
is_promoted() { [ "$(promoted "$1")" = true ]; }
backing() { cat "/sys/block/${1#/dev/}/loop/backing_file"; }
# drop_pages FOLDER: of its files, so that they are read from the device again
drop_pages() { find "$1" -type f -exec dd if={} iflag=nocache count=0 status=none \; ; }

assert_tree_is_whole() {
	drop_pages "$1"
	diff -r "$T/tree" "$1" || fail "files differ"
}

that_a_device_is_promoted_once_its_image_is_fetched() {
	need_device
	need_filesystem erofs
	cairn mount "$U/fs" "$MNT" --name fs --promote auto
	assert_eq "$(promoted fs)" false "promoted before it is complete"
	assert_says "$(cairn status)" 'not promoted: .*complete'
	cairn fetch fs --wait
	wait_until 5 is_promoted fs || fail "not promoted: $(image fs .promote_note)"
	assert_says "$(backing "$(image fs .device)")" "$T/d/a/store/objects/image-.*/data"
	assert_eq "$(cat "/sys/block/$(basename "$(image fs .device)")/loop/dio")" 1 "direct I/O"
	[ -z "$(leftover_nbdfuse)" ] || fail "nbdfuse still runs"
	assert_says "$(cairn status)" 'promoted: the store'
	assert_tree_is_whole "$MNT"
}

leftover_nbdfuse() {
	local p
	for p in $(pids_of_scratch); do
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = nbdfuse ]; then echo "$p"; fi
	done
}

# Reads past the page cache, comparing every byte, until told to stop; or leaves what went wrong.
read_on() {
	while [ ! -e "$T/stop" ]; do
		cmp -s "$1" <(dd if="$2" iflag=direct bs=256k status=none) || { touch "$T/differs"; return; }
		echo >>"$T/rounds"
	done
}

that_no_read_notices_it_there_and_back_a_hundred_times() {
	need_device
	local reader
	rm -f "$T/stop" "$T/differs" "$T/rounds"
	read_on "$T/fs" "$(image fs .device)" &
	reader=$!
	for ((i = 0; i < SWAPS / 2; i++)); do
		cairn attach "$U/fs" --name fs --promote never >/dev/null
		assert_eq "$(promoted fs)" false "promoted after never"
		cairn attach "$U/fs" --name fs --promote auto >/dev/null
		assert_eq "$(promoted fs)" true "promoted after auto"
	done
	touch "$T/stop"
	wait $reader
	[ ! -e "$T/differs" ] || fail "a reader got other bytes"
	note "$SWAPS swaps, $(wc -l <"$T/rounds") whole reads of the image meanwhile"
	assert_tree_is_whole "$MNT"
}

that_a_worker_killed_is_not_missed() {
	need_device
	local w
	w=$(worker_pid)
	kill -STOP "$w" # nobody serves anything
	assert_tree_is_whole "$MNT"
	kill -KILL "$w"
	assert_tree_is_whole "$MNT"
	wait_until 20 cairnd_is_up a
	wait_until 5 is_promoted fs || fail "the next worker does not know"
	cairn upgrade
	wait_until 5 is_promoted fs || fail "the worker after an upgrade does not know"
	assert_tree_is_whole "$MNT"
}

that_both_killed_are_not_missed_and_the_next_cairnd_knows() {
	need_device
	cairnd_kill a
	assert_tree_is_whole "$MNT"
	cairnd_launch a
	wait_until 5 is_promoted fs || fail "the next cairnd does not know"
	[ -z "$(leftover_nbdfuse)" ] || fail "it started an nbdfuse"
	assert_tree_is_whole "$MNT"
}

that_pressure_on_the_store_leaves_it_whole() {
	need_device
	cairn export "$U/big" --name big >/dev/null
	nbdcopy "$(uri "$U/big" --name big)" null:
	[ "$(status .store.evictions)" -gt 0 ] || fail "nothing was evicted: the store is too large for this test"
	assert_eq "$(image fs .complete)" true "complete"
	assert_tree_is_whole "$MNT"
	cairn detach big
}

that_detach_lets_go_of_it() {
	need_device
	cairn umount "$MNT"
	[ -z "$(loops_of_scratch)" ] || fail "a loop device is left"
	wait_until 5 no_promoted_marks || fail "it is still kept"
	cairn export "$U/big" --name big >/dev/null
	nbdcopy "$(uri "$U/big" --name big)" null:
	cairn export "$U/fs" --name fs >/dev/null
	assert_eq "$(image fs .complete)" false "complete after its space was taken"
	cairn detach fs
	assert_fails 'not complete' cairn mount "$U/fs" "$MNT" --name fs --promote erofs-file
	assert_image_equals "$(uri "$U/fs" --name fs)" "$T/fs"
	cairn detach fs
	cairn detach big
}

that_the_stores_file_is_mounted_as_such() {
	need_root
	need_filesystem erofs
	if ! cairn mount "$U/fs" "$MNT" --name fs --promote erofs-file --wait 2>"$T/err"; then
		grep -q 'mounts no erofs without' "$T/err" && skip "$(cat "$T/err")"
		fail "$(cat "$T/err")"
	fi
	assert_eq "$(promoted fs)" true "promoted"
	[ -z "$(loops_of_scratch)" ] || fail "a loop device is there"
	assert_tree_is_whole "$MNT"
	assert_fails 'unmount' cairn detach fs
	cairnd_kill a
	assert_tree_is_whole "$MNT"
	cairnd_launch a
	assert_eq "$(promoted fs)" true "promoted, says the next cairnd"
}

that_a_file_that_is_still_read_is_not_let_go_even_by_force() {
	need_root
	[ "$(promoted fs)" = true ] || skip "the store's file is not mounted"
	exec 7<"$MNT/file8"
	umount -l "$MNT"
	cairn detach fs --force
	cairn export "$U/big" --name big >/dev/null
	nbdcopy "$(uri "$U/big" --name big)" null:
	cmp "$T/tree/file8" /dev/fd/7
	exec 7<&-
	wait_until 5 no_promoted_marks || fail "it is still kept"
	cairn detach big
	cairn mount "$U/fs" "$MNT" --name fs --promote erofs-file --wait
	cairn umount "$MNT"
	assert_says "$(cairn status)" 'no images'
}

no_promoted_marks() { [ -z "$(find "$T/d/a/store" -name promoted)" ]; }

that_a_complete_ext4_is_promoted_at_attach_and_not_under_its_mount() {
	need_device
	need_filesystem ext4
	cairn mount "$U/ext4" "$MNT" --name e --promote auto
	cairn fetch e --wait
	wait_until 5 eval '[ -n "$(image e .promote_note)" ] && [ "$(image e .complete)" = true ]'
	sleep 1.2
	assert_says "$(image e .promote_note)" 'attach.*again'
	assert_eq "$(promoted e)" false "promoted under its mount"
	diff -r "$T/tree" "$MNT" -x lost+found
	cairn umount "$MNT"
	cairn mount "$U/ext4" "$MNT" --name e --promote auto
	assert_eq "$(promoted e)" true "promoted at attach"
	drop_pages "$MNT"
	diff -r "$T/tree" "$MNT" -x lost+found
	cairn umount "$MNT"
}

that_what_is_not_sealed_is_never_promoted() {
	need_device
	"$AZ" put images/raw "$T/fs"
	cairn attach "$U/raw" --name raw --promote auto >/dev/null
	cairn fetch raw --wait
	assert_says "$(image raw .promote_note)" 'not sealed'
	assert_eq "$(promoted raw)" false "promoted"
	cairn detach raw
}

mkdir -p "$T/tree"
for i in 1 2 3 4 5 6 7 8; do random_file "$T/tree/file$i" $((i * 300000)) "$i"; done
random_file "$T/big" $((96 * 1024 * 1024))
azurite_start
cairn image build "$T/tree" "$T/fs" --fs erofs
cairn image build "$T/tree" "$T/ext4" --fs ext4
for i in fs ext4 big; do cairn image push "$T/$i" "$U/$i"; done
cairnd_start a store.size=64MiB
run_tests
