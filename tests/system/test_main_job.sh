#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The main job: a directory becomes a sealed image in Blob, a mounted device, and every file reads
# back equal; a second cold mount asks Blob for nothing, also after a restart.
. "$(dirname "$0")/lib.sh"

build_and_push() { # FS
	need_filesystem "$1"
	cairn image build "$T/tree" "$T/tree.$1" --fs "$1"
	cairn image push "$T/tree.$1" "$U/tree.$1"
}

mount_compare_umount() { # FS
	need_device
	need_filesystem "$1"
	LIMIT=180 cairn mount "$U/tree.$1" "$MNT" --name "$1"
	mountpoint -q "$MNT"
	tree_hashes "$MNT" >"$T/hashes.$1"
	diff -u "$T/hashes" "$T/hashes.$1"
	image "$1" '"\(.verified) \(.device) \(.digest)"' >"$T/shown.$1"
	cairn umount "$MNT"
	refute mountpoint -q "$MNT"
}

second_mount() { # FS
	local before
	before=$(origin_gets)
	drop_caches
	mount_compare_umount "$1"
	assert_eq "$(origin_gets)" "$before" "requests and bytes asked of Blob after the second mount"
}

assert_shown() { # FS
	need_tool fsverity
	local want
	want=$(fsverity digest --hash-alg=sha256 --block-size=65536 --compact "$T/tree.$1")
	read -r verified device digest <"$T/shown.$1"
	assert_eq "$verified" true "verified"
	assert_says "$device" '^/dev/(loop|nbd)[0-9]+$'
	assert_eq "$digest" "sha256:$want" "the digest beside fsverity's"
	assert_eq "$(losetup -lnO BACK-FILE | grep -cF "$T" || true)" 0 "loop devices left over"
}

that_an_erofs_image_is_built_and_pushed() { build_and_push erofs; }
that_an_ext4_image_is_built_and_pushed() { build_and_push ext4; }
that_every_file_of_an_erofs_image_reads_back_equal() { mount_compare_umount erofs; }
that_every_file_of_an_ext4_image_reads_back_equal() { mount_compare_umount ext4; }
that_status_shows_an_erofs_image_verified_with_the_digest_fsverity_gives() { assert_shown erofs; }
that_status_shows_an_ext4_image_verified_with_the_digest_fsverity_gives() { assert_shown ext4; }
that_a_second_cold_mount_of_erofs_asks_blob_for_nothing() { second_mount erofs; }
that_a_second_cold_mount_of_ext4_asks_blob_for_nothing() { second_mount ext4; }

that_reads_are_counted_by_source() {
	assert_le 1 "$(status .counters.served_bytes.origin)" "bytes served from the origin"
	assert_le 1 "$(status .counters.served_bytes.local)" "bytes served from the store"
	assert_eq "$(status .counters.served_bytes.peer)" 0 "bytes served from peers, which do not exist yet"
	assert_eq "$(status '.counters.read_errors + .counters.verify_failures')" 0 "errors"
	assert_le "$(status .store.used_bytes)" "$(status .store.size_bytes)" "the store's use"
}

that_the_event_loop_is_the_one_asked_for() {
	case "${CAIRN_LOOP-auto}" in
	epoll) assert_eq "$(status .event_loop)" epoll "event loop" ;;
	uring) assert_eq "$(status .event_loop)" io_uring "event loop" ;;
	*) assert_says "$(status .event_loop)" '^(io_uring|epoll)$' ;;
	esac
}

that_after_a_restart_a_cold_mount_asks_blob_for_nothing() {
	need_device
	cairnd_stop
	cairnd_launch a
	second_mount erofs
	second_mount ext4
	assert_eq "$(origin_gets)" "0 0" "requests and bytes asked of Blob since the restart"
}

that_nothing_secret_was_logged() { assert_no_secret "$T"/d/a/log "$T"/out "$T"/d/a/cairnd.ini; }

real_tree "$T/tree"
tree_hashes "$T/tree" >"$T/hashes"
azurite_start
cairnd_start a
run_tests
