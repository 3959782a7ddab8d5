#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pages of a mounted kernel device that are in memory twice: in its mount, and in the store's files.
. "$(dirname "$0")/nbd.sh"
. "$(dirname "$0")/../system/page_cache.sh"

# Reads all of a mounted image. To $MOUNT and $STORE: bytes in the page cache of either; to $DATA: bytes of
# the image that are in the store (the mount also holds what is zeros, and ends of pages).
count_pages() {
	cairn mount "$U/ext4" "$MNT" --name fs
	read_mount
	MOUNT=$(mount_cached)
	STORE=$(store_cached)
	DATA=$(image fs .bytes_present)
	[ "$MOUNT" -ge "$DATA" ] || fail "the mount holds only $MOUNT bytes of $DATA"
}

that_by_default_no_page_is_held_twice() {
	cairnd_start a
	count_pages
	wait_until 60 store_holds_at_most 3 "$DATA" || fail "the store holds $(store_cached) bytes of $DATA"
	note "filled from the origin: of $DATA bytes the mount holds all, the store $(store_cached)"
	assert_tree "$MNT"
	cairn umount "$MNT"
	count_pages
	note "read from the disk: of $DATA bytes the mount holds all, the store $STORE"
	store_holds_at_most 15 "$DATA" || fail "cold reads filled the page cache: $STORE bytes of $DATA"
	assert_tree "$MNT"
	cairn umount "$MNT"
	cairnd_drop a
}

that_every_page_is_held_twice_when_dropping_is_off() {
	cairnd_start a store.page_cache=keep
	count_pages
	sleep 10
	STORE=$(store_cached)
	note "page_cache = keep: of $DATA bytes the mount holds all, the store $STORE"
	[ "$STORE" -ge $((DATA * 9 / 10)) ] || fail "the store holds only $STORE bytes of $DATA"
	cairn umount "$MNT"
	cairnd_drop a
}

D=a
run_tests
