#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The store when things go wrong: full, too small, owned by another, damaged, killed while it fills.
# Whatever happens, the bytes that readers get are right.
. "$(dirname "$0")/lib.sh"

LEN=$((300 << 20))

# store_files FOLDER FILE, as docs/operations.md draws the store: image-HEX/data, tree-HEX/data, ...
store_files() { find "$T/d/$D/store/objects" -type f -path "*/$1-*/$2" -size +0; }
store_blocks() { du -s --block-size=1 "$T/d/$D/store" | cut -f1; }

# flip_bit FILE OFFSET, in place, as a careless program would
flip_bit() {
	python3 - "$1" "$2" <<-'PY'
		import os, sys
		fd = os.open(sys.argv[1], os.O_RDWR)
		b = os.pread(fd, 1, int(sys.argv[2]))
		assert len(b) == 1, "nothing there to flip"
		os.pwrite(fd, bytes([b[0] ^ 1]), int(sys.argv[2]))
	PY
}

present() { [ "$(image "$1" .bytes_present)" -ge "$2" ]; }

filled() { # a daemon NAME with img wholly in its store
	D=$1
	cairnd_start "$1"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	present img "$LEN" || fail "the store holds $(image img .bytes_present) of $LEN bytes after a whole read"
}

that_an_image_larger_than_the_store_reads_right_and_keeps_to_its_size() {
	D=small
	cairnd_start small store.size=64MiB
	local u reader most=0 used
	u=$(uri "$U/img" --name img)
	(assert_image_equals "$u" "$T/img") &
	reader=$!
	while pid_alive $reader; do
		used=$(status .store.used_bytes)
		[ "$used" -le $most ] || most=$used
		sleep 0.2
	done
	wait $reader
	assert_image_equals "$u" "$T/img"
	assert_le "$(status .store.used_bytes)" "$(status .store.size_bytes)" "store use"
	assert_le $most $((64 << 20)) "most that the store said it used"
	sync -f "$T/d/small/store"
	assert_le "$(store_blocks)" $((66 << 20)) "disk blocks of the store (64 MiB, trees and maps)"
	cairnd_stop
}

that_random_reads_over_a_store_too_small_are_right() {
	D=small
	cairnd_launch small
	nbd_shell -u "$(uri "$U/img" --name img)" -c "
import os, random
fd = os.open('$T/img', os.O_RDONLY)
random.seed(3)
for i in range(1500):
    n = random.choice((4096, 16384, 131072))
    off = random.randrange(0, $LEN - n) & ~4095
    assert h.pread(n, off) == os.pread(fd, n, off), f'{n} bytes at {off} differ'
"
	assert_le "$(status .store.used_bytes)" $((64 << 20)) "store use"
	cairnd_stop
}

that_a_full_disk_under_the_store_costs_speed_and_nothing_else() {
	need_root
	D=full
	cairnd_config full
	mount -t tmpfs -o size=40m cairn-full "$T/d/full/store"
	cairnd_launch full
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_eq "$(image img .read_errors)" 0 "read errors"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	umount "$T/d/full/store"
}

that_a_disk_that_others_fill_while_it_serves_costs_speed_and_nothing_else() {
	need_root
	D=full
	cairnd_config full
	mount -t tmpfs -o size=120m cairn-full "$T/d/full/store"
	cairnd_launch full
	local u
	u=$(uri "$U/img" --name img)
	nbd_read "$u" 0 $((16 << 20)) | cmp -n $((16 << 20)) - "$T/img"
	head -c 200M /dev/zero >"$T/d/full/store/ballast" 2>/dev/null || true # until ENOSPC
	assert_image_equals "$u" "$T/img"
	assert_eq "$(image img .read_errors)" 0 "read errors"
	cairnd_stop
	umount "$T/d/full/store"
}

that_a_store_of_another_cairnd_is_refused() {
	cairnd_start a
	cairnd_config thief "store.path=$T/d/a/store"
	assert_fails "$T/d/a/store" timeout 20 "$CAIRND" -c "$T/d/thief/cairnd.ini"
	assert_says "$SAID" 'another|in use|locked|owned'
	cairn status --json >/dev/null
	cairnd_stop
	cairnd_drop thief
}

that_a_store_file_truncated_while_stopped_is_noticed() {
	filled trunc
	cairnd_stop
	local f
	for f in $(store_files image data); do truncate -s 1M "$f"; done
	cairnd_launch trunc
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le 1 "$(status .counters.origin_get_bytes)" "bytes fetched again"
	cairnd_stop
}

that_a_bit_flipped_in_the_store_while_stopped_is_noticed() {
	filled flip
	cairnd_stop
	flip_bit "$(store_files image data)" $((100 << 20))
	cairnd_launch flip
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le 1 "$(status .counters.origin_get_bytes)" "bytes fetched again"
	cairnd_stop
}

that_a_tree_damaged_in_the_store_while_stopped_is_noticed() {
	filled tree
	cairnd_stop
	local f n=0
	for f in $(store_files tree data); do flip_bit "$f" 40; n=$((n + 1)); done
	assert_le 1 $n "trees in the store"
	cairnd_launch tree
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

# The worst lie that a store can tell: bytes are there which never came.
that_a_presence_map_that_claims_too_much_gives_no_zeros() {
	D=claims
	cairnd_start claims fill.readahead=0
	nbd_read "$(uri "$U/img" --name img)" 0 65536 | cmp -n 65536 - "$T/img"
	cairnd_stop
	local f n=0
	for f in $(store_files image present); do
		python3 -c 'import sys; p = sys.argv[1]; b = open(p, "rb").read(); f = open(p, "r+b"); f.write(b"\xff" * len(b))' "$f"
		n=$((n + 1))
	done
	assert_le 1 $n "presence maps in the store"
	cairnd_launch claims
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

# The manifest is kept by URL; any damage to it means that it is asked for again.
that_a_manifest_damaged_in_the_store_is_noticed() {
	local f at n
	D=manifest
	cairnd_config manifest
	for at in 2 90 150 210 270 330; do
		cairnd_launch manifest
		assert_image_equals "$(uri "$U/small" --name "small$at")" "$T/small"
		cairnd_stop
		n=0
		for f in "$T/d/manifest/store/urls/"*; do flip_bit "$f" "$at"; n=$((n + 1)); done
		assert_eq $n 2 "copies of the manifest in the store, by URL and by digest"
	done
	cairnd_launch manifest
	assert_image_equals "$(uri "$U/small" --name last)" "$T/small"
	assert_eq "$(image last .verified)" true "verified"
	cairnd_stop
}

that_a_store_file_truncated_while_it_serves_gives_no_wrong_byte() {
	filled live
	truncate -s 1M "$(store_files image data)"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

# While the daemon runs a flipped bit in a resident block can't be seen (docs/operations.md); after an
# unclean stop every block is checked at first use.
that_a_bit_flipped_while_it_serves_is_noticed_after_an_unclean_stop() {
	filled unclean
	flip_bit "$(store_files image data)" $((50 << 20))
	cairnd_kill
	cairnd_launch unclean
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le 1 "$(status .counters.verify_failures)" "verification failures"
	cairnd_stop
}

that_a_bit_flipped_in_blocks_that_are_then_evicted_is_gone() {
	D=evict
	cairnd_start evict store.size=64MiB fill.readahead=0
	local u i
	u=$(uri "$U/small" --name small)
	nbd_read "$u" 0 65536 | cmp -n 65536 - "$T/small"
	flip_bit "$(store_files image data)" 5000
	uri "$U/img" --name img >/dev/null
	for i in 1 2 3; do
		timeout 200 nbdcopy "$(uri "$U/img" --name img)" null:
		[ "$(image small .bytes_present)" != 0 ] || break
	done
	assert_eq "$(image small .bytes_present)" 0 "bytes present of an image that $i × 300 MiB were read over"
	nbd_read "$u" 0 65536 | cmp -n 65536 - "$T/small"
	cairnd_stop
}

that_a_complete_image_survives_an_unclean_stop_without_being_fetched_again() {
	filled kept
	sync -f "$T/d/kept/store"
	cairnd_kill
	cairnd_launch kept
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le "$(status .counters.origin_get_bytes)" $((LEN / 4)) "bytes fetched again after a kill"
	cairnd_stop
}

# kill_during_fill WHICH: while nbdcopy reads, at three points of the fill
kill_during_fill() {
	local at reader
	D=$1
	cairnd_start "$1"
	for at in 2 40 150; do
		timeout 100 nbdcopy "$(uri "$U/img" --name img)" null: >/dev/null 2>&1 &
		reader=$!
		wait_until 60 present img $((at << 20)) || fail "the fill did not get to $at MiB"
		"$2"
		wait $reader || true # a user program's connection may close
		wait_until 30 cairn status --json || fail "no answer after the kill at $at MiB"
	done
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
	# and what is in the store after all this stays right
	cairnd_launch "$1"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

kill_worker() {
	local w
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 10 pid_gone "$w"
	wait_until 30 worker_pid
	KILLS=$((${KILLS-0} + 1))
	wait_until 30 cairn status --json
	assert_eq "$(status .worker_restarts)" "$KILLS" "restarts of the worker"
}
kill_both() {
	cairnd_kill
	cairnd_launch "$D"
}

that_sigkill_of_the_worker_during_a_fill_loses_nothing() { kill_during_fill killw kill_worker; }
that_sigkill_of_both_processes_during_a_fill_loses_nothing() { kill_during_fill killb kill_both; }

that_exports_are_back_after_the_worker_was_killed() {
	D=back
	cairnd_start back
	local u
	u=$(uri "$U/small" --name small)
	kill_worker
	wait_until 20 nbd_read "$u" 0 4096 || fail "the export did not come back"
	nbd_read "$u" 0 4096 | cmp -n 4096 - "$T/small"
	cairnd_stop
}

# The origin does not answer any more, readers wait, and somebody stops the daemon.
that_a_stop_while_reads_wait_for_a_silent_origin_is_quick_and_clean() {
	D=silent
	cairnd_start silent fill.deadline=90
	local u reader start
	u=$(uri "$U/img" --name img)
	nbd_read "$u" 0 65536 | cmp -n 65536 - "$T/img"
	kill -STOP "$(azurite_pid)"
	timeout 100 nbdcopy "$u" null: >/dev/null 2>&1 &
	reader=$!
	sleep 2
	pid_alive $reader || fail "the reader did not wait"
	start=$SECONDS
	kill -TERM "$(supervisor_pid)"
	wait_until 30 pid_gone "$(supervisor_pid)" || echo "the supervisor did not stop within 30 s"
	kill -CONT "$(azurite_pid)"
	assert_le $((SECONDS - start)) 15 "seconds to stop"
	wait_until 10 pid_gone $reader || fail "the reader still waits"
	cairnd_launch silent
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

that_a_store_that_cannot_be_written_is_named() {
	cairnd_config nowrite "store.path=/proc/nosuch"
	assert_fails '/proc/nosuch' timeout 20 "$CAIRND" -c "$T/d/nowrite/cairnd.ini"
}

random_file "$T/img" "$LEN"
random_file "$T/small" $((5 << 20)) small
azurite_start
cairn image push "$T/img" "$U/img"
cairn image push "$T/small" "$U/small"
run_tests
