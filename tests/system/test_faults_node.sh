#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A node on a bad day: disks that fail, lie, fill up and lose power, a clock that jumps, no descriptors and no
# memory left, a worker that stands still. Readers get right bytes or EIO with a reason, and all is well afterwards.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../faults/lib.sh"

BADDISK=$BUILD/faults/baddisk

# --- disks --------------------------------------------------------------------------------------

# disk NAME: a disk that does as $T/NAME.faults says (tests/faults/baddisk.c), at $T/NAME; its bytes are in $T/NAME.below
disk() {
	need_device
	mkdir -p "$T/$1" "$T/$1.below"
	: >"$T/$1.faults"
	setsid "$BADDISK" "$T/$1.below" "$T/$1.faults" "$T/$1" >"$T/$1.log" 2>&1 </dev/null &
	disown $!
	wait_until 20 mountpoint -q "$T/$1" || fail "no disk: $(cat "$T/$1.log")"
}
# disk_is NAME [FAULT...]: from now on
disk_is() {
	local name=$1
	shift
	printf '%s\n' "$@" >"$T/$name.new"
	mv "$T/$name.new" "$T/$name.faults"
}
disk_gone() { umount "$T/$1"; }

# What the page cache holds of the store's files is let go, so that the disk is asked.
forget_pages() {
	local f
	sync -f "$T/$1"
	find "$T/$1" -name "${2-data}" -type f | while read -r f; do dd if="$f" iflag=nocache count=0 status=none; done
}

store_errors() { cairn_metric cairn_store_errors_total; }
cairn_metric() { curl -s --max-time 20 --unix-socket "$T/d/$D/c.sock" http://localhost/metrics | awk -v m="$1" '$1 == m { print $2 }'; }
present_of() { image "$1" .bytes_present; }
gets() { status .counters.origin_get_requests; }

that_a_store_that_cannot_be_read_costs_speed_and_nothing_else() {
	local u
	disk read
	D=read
	publish read
	cairnd_start read "store.path=$T/read/store" fill.deadline=10
	cairn mount "$(fs_url)" "$MNT" --name fs
	u=$(uri "$(url read)" --name read)
	assert_image_equals "$u" "$T/img.read"
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	forget_pages read
	disk_is read 'read EIO data'
	assert_image_equals "$u" "$T/img.read"
	cairn mount "$(fs_url)" "$MNT" --name fs
	diff -r "$T/tree" "$MNT"
	assert_le 1 "$(gets)" "GETs for what the disk did not give"
	assert_says "$(cat "$T/d/read/log")" "store file can't be read"
	# and no origin either: refused, and never a byte that is not the image's
	forget_pages read
	origin 'listen?on=0'
	assert_read_is_eio "$u" $((3 << 20))
	assert_says "$(image read .last_error)" 'connect|refused'
	disk_is read
	origin 'listen?on=1'
	assert_image_equals "$u" "$T/img.read"
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	local before
	before=$(gets)
	assert_image_equals "$u" "$T/img.read"
	assert_eq "$(gets)" "$before" "GETs when the disk is well again"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	disk_gone read
}

# Each fault of writing, with an image of its own on the same disk: first the fault, then the disk is well.
that_a_store_that_cannot_be_written_costs_speed_and_is_used_again_afterwards() {
	local fault name u before i=0
	disk write
	D=write
	cairnd_start write "store.path=$T/write/store" fill.deadline=10 fill.readahead=0
	for fault in 'write EIO data' 'write ENOSPC data' 'write EIO present' 'change EROFS' 'write short'; do
		i=$((i + 1))
		name=write$i
		publish $name
		u=$(uri "$(url $name)" --name $name)
		assert_piece "$u" "$T/img.$name" 0
		disk_is write "$fault"
		before=$(store_errors)
		assert_image_equals "$u" "$T/img.$name"
		assert_image_equals "$u" "$T/img.$name"
		if [ "$fault" != 'write short' ]; then
			assert_le $((before + 1)) "$(store_errors)" "store errors counted after $fault"
			assert_le "$(present_of $name)" $((1 << 20)) "bytes in a store that was $fault"
		fi
		disk_is write
		assert_image_equals "$u" "$T/img.$name"
		assert_le "$LEN" "$(present_of $name)" "bytes in the store after $fault was over"
		before=$(gets)
		assert_image_equals "$u" "$T/img.$name"
		assert_eq "$(gets)" "$before" "GETs after $fault was over"
	done
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	disk_gone write
}

that_a_worker_that_dies_over_a_read_only_store_is_back_when_it_can_be_written() {
	local u w
	disk ro
	D=ro
	publish ro
	cairnd_start ro "store.path=$T/ro/store" fill.deadline=10
	u=$(uri "$(url ro)" --name ro)
	assert_image_equals "$u" "$T/img.ro"
	disk_is ro 'change EROFS'
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 20 grep -qi 'store .*read-only' "$T/d/ro/log" || fail "the log does not say why there is no worker"
	disk_is ro
	wait_until 40 nbd_read "$u" 0 4096 || fail "no worker came back"
	assert_image_equals "$u" "$T/img.ro"
	cairnd_stop
	disk_gone ro
}

# Silent corruption: success is told and the bytes are others. After a stop that was not clean all is looked at.
that_a_disk_that_wrote_other_bytes_gives_none_of_them() {
	local fault
	disk lie
	D=lie
	publish lie
	for fault in 'write flip data' 'write lose data' 'write flip' 'write lose image-'; do
		cairnd_start lie "store.path=$T/lie/store" fill.deadline=10
		disk_is lie "$fault"
		assert_image_equals "$(uri "$(url lie)" --name lie)" "$T/img.lie"
		disk_is lie
		cairnd_kill
		disk_gone lie # and what the page cache remembers of it
		disk lie
		cairnd_launch lie
		assert_image_equals "$(uri "$(url lie)" --name lie)" "$T/img.lie"
		assert_eq "$(image lie .last_error)" "" "last error"
		cairnd_stop
		rm -rf "$T/lie/store" "$T/d/lie"
	done
	disk_gone lie
}

that_a_disk_that_reads_other_bytes_gives_none_of_them_after_an_unclean_stop() {
	disk rot
	D=rot
	publish rot
	cairnd_start rot "store.path=$T/rot/store" fill.deadline=10
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	cairnd_kill
	disk_gone rot
	disk rot
	disk_is rot 'read flip data'
	cairnd_launch rot
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	assert_le 1 "$(gets)" "GETs in place of what the disk gave"
	disk_is rot
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	cairnd_stop
	disk_gone rot
}

# The tree in the store goes bad under a worker that trusts it: then good bytes do not match.
that_a_tree_that_goes_bad_in_the_store_is_fetched_again() {
	local u f n=0
	D=tree
	publish badtree
	cairnd_start tree fill.deadline=10 fill.readahead=0
	u=$(uri "$(url badtree)" --name badtree)
	assert_piece "$u" "$T/img.badtree" 0
	for f in "$T/d/tree/store/objects/tree-"*/data; do
		python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for at in range(0, 80 * 32, 32):
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)' "$f"
		n=$((n + 1))
	done
	assert_eq $n 1 "trees in the store"
	assert_image_equals "$u" "$T/img.badtree"
	assert_eq "$(image badtree .last_error)" "" "last error"
	cairnd_stop
}

that_a_full_disk_is_used_again_when_it_has_room() {
	need_root
	local u v before
	D=room
	publish room1
	publish room2
	mkdir -p "$T/room"
	mount -t tmpfs -o size=24m cairn-room "$T/room"
	cairnd_start room "store.path=$T/room/store" fill.deadline=10
	u=$(uri "$(url room1)" --name room1)
	assert_image_equals "$u" "$T/img.room1"
	head -c 64M /dev/zero >"$T/room/ballast" 2>/dev/null || true # until ENOSPC
	v=$(uri "$(url room2)" --name room2) # what is in the store makes room for another image
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	assert_eq "$(image room1 .read_errors)" 0 "read errors"
	rm "$T/room/ballast"
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	before=$(gets)
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	assert_eq "$(gets)" "$before" "GETs when the disk has room"
	cairnd_stop
	umount "$T/room"
}

# --- the rest of a run --------------------------------------------------------------------------

url() { echo "http://127.0.0.1:$HTTP/$1/img"; }
fs_url() { url fs; }

make_fs() {
	local i
	mkdir -p "$T/tree"
	for i in $(seq 20); do random_file "$T/tree/file$i" 70000 "file$i"; done
	publish_tree "$T/tree" fs
}

mkdir -p "$T/pub"
origin_start
make_fs
run_tests
