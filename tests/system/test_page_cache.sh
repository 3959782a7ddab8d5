#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a device reads does not stay in the page cache of the store's files. Other tests may drop
# caches at any time, so here only what must be gone is counted; a guest counts the rest.
# any event loop
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/page_cache.sh"

BYTES=$((48 << 20))

that_a_mounted_file_is_not_held_twice() {
	need_device
	need_tool fincore
	cairn mount "$U/fs" "$MNT" --name fs
	read_mount
	cmp "$MNT/file" "$T/tree/file"
	wait_until 30 store_holds_at_most 3 $BYTES || fail "the store's pages stay: $(store_cached) of $BYTES bytes"
	cairn umount "$MNT"
	cairn mount "$U/fs" "$MNT" --name fs
	read_mount # from the disk now; readahead fills what was not read before
	store_holds_at_most 15 $BYTES || fail "cold reads filled the page cache: $(store_cached) of $BYTES bytes"
	assert_eq "$(image fs .reads.origin)" 0 "reads from the origin"
	cmp "$MNT/file" "$T/tree/file"
	cairn umount "$MNT"
}

mkdir -p "$T/tree" "$T/origin"
chmod 755 "$T" "$T/origin"
random_file "$T/tree/file" $BYTES
U=file://$T/origin
"$CAIRN" image build -q "$T/tree" "$T/fs" --fs ext4 >/dev/null
"$CAIRN" image push -q "$T/fs" "$U/fs" >/dev/null
cairnd_start a
run_tests
