#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What an empty store asks its origin for: no byte too many for reads at random, few round trips for a
# mount and its first file, whole images for files that are read in any order. By the origin's counters.
. "$(dirname "$0")/lib.sh"

MIB=$((1 << 20))

origin_start() {
	setsid "$BUILD/bench/origin" "$T/o" >"$T/origin.url" 2>"$T/origin.log" </dev/null &
	disown $!
	wait_until 10 test -s "$T/origin.url" || fail "the origin did not start"
}
origin_ask() { curl -sS --max-time 20 "$(cat "$T/origin.url")/$1"; }
origin_count() { origin_ask __stats | jq ".$1"; }

# load NAME OPS SIZE DEPTH: bytes of the blocks that reads at random touched
load() {
	timeout -k 5 60 "$BUILD/bench/nbdload" --ops "$2" "$T/d/$D/n.sock" "$1" rnd "$3" "$4" 1 30 | jq .unique_bytes
}

# image_of DIR NAME TYPE: a sealed image of the folder, beside the others of the origin
image_of() {
	"$CAIRN" image build --fs "$3" "$1" "$T/o/$2"
	"$CAIRN" image seal "file://$T/o/$2"
	# the ETags are the origin's to give, not the folder's
	sed -i 's/"etag": "[^"]*"/"etag": ""/' "$T/o/$2.cairn.json"
}

that_small_reads_at_random_over_a_large_image_bring_in_a_block_each() {
	truncate -s 64G "$T/o/large"
	cairnd_start a
	uri "$(cat "$T/origin.url")/large" --name large >/dev/null
	origin_ask __reset >/dev/null
	assert_le "$(load large 2000 4096 1)" $((2000 * 4096)) "bytes of the reads"
	note "2,000 reads of 4 KiB: $(origin_count requests) requests, $(origin_count body_bytes) bytes"
	assert_le "$(origin_count body_bytes)" $((2000 * 65536)) "bytes of the origin"
}

that_larger_ones_cost_no_more_than_six_tenths_beyond_their_blocks() {
	local needed
	origin_ask __reset >/dev/null
	needed=$(load large 2000 131072 16)
	note "2,000 reads of 128 KiB: $(origin_count body_bytes) bytes for $needed"
	assert_le "$(origin_count body_bytes)" $((needed * 16 / 10)) "bytes of the origin"
}

# rounds_of_a_mount TYPE: each request waits 20 ms, so those that do not depend on each other meet
rounds_of_a_mount() {
	local rounds
	need_device
	need_filesystem "$1"
	image_of "$T/tree" "small.$1" "$1"
	origin_ask '__set?delay_ms=20' >/dev/null
	origin_ask __reset >/dev/null
	cairn mount "$(cat "$T/origin.url")/small.$1" "$MNT" --name small --way nbdfuse
	cat "$MNT/n7/f03" >"$T/got"
	rounds=$(origin_count rounds)
	origin_ask '__set?delay_ms=0' >/dev/null
	note "$1: $(origin_count requests) requests in $rounds rounds, $(origin_count body_bytes) bytes"
	cmp "$T/got" "$T/tree/n7/f03"
	cairn umount "$MNT"
	assert_le "$rounds" 6 "requests that waited for each other"
}

that_a_mount_of_erofs_and_its_first_file_take_six_round_trips() {
	local d
	for d in $(seq 0 15); do
		random_file "$T/bytes" 4000000 "$d"
		mkdir -p "$T/tree/n$d"
		split -b 80000 -d -a 2 "$T/bytes" "$T/tree/n$d/f"
	done
	rounds_of_a_mount erofs
}

that_a_mount_of_ext4_and_its_first_file_take_six_round_trips() { rounds_of_a_mount ext4; }

that_nbdfuse_may_have_more_reads_in_flight_than_the_kernels_twelve() {
	local id
	need_device
	mkdir -p "$T/fusectl"
	mount -t fusectl none "$T/fusectl" || skip "needs the file system fusectl"
	cairn attach "file://$T/o/large" --name sparse --way nbdfuse >/dev/null
	id=$(awk -v t="$T/d/a/run/attach/" 'index($5, t) == 1 { sub("0:", "", $3); print $3 }' /proc/self/mountinfo)
	assert_eq "$(cat "$T/fusectl/$id/max_background")" 64 "reads in flight"
	cairn detach sparse
	umount "$T/fusectl"
}

that_small_files_in_any_order_soon_bring_in_the_whole_image() {
	local needed
	need_device
	need_filesystem ext4
	[ -e "$T/o/small.ext4" ] || skip "needs the image of the test before"
	cairnd_drop
	cairnd_start a
	cairn mount "$(cat "$T/origin.url")/small.ext4" "$MNT" --name small --way nbdfuse
	origin_ask '__set?delay_ms=5' >/dev/null
	origin_ask __reset >/dev/null
	(cd "$MNT" && find . -name 'f*' | sort -R --random-source="$T/o/small.ext4" | tee "$T/order" |
		xargs -d '\n' -P 8 -n 50 sha256sum) >"$T/sums"
	origin_ask '__set?delay_ms=0' >/dev/null
	needed=$(du -s --apparent-size -B1 "$T/tree" | cut -f1)
	note "$(wc -l <"$T/sums") files of $((needed / MIB)) MiB: $(origin_count requests) requests, $(($(origin_count body_bytes) / MIB)) MiB"
	cairn umount "$MNT"
	assert_eq "$(wc -l <"$T/sums")" 800 "files read"
	(cd "$T/tree" && sha256sum --quiet -c "$T/sums")
	assert_le "$(origin_count body_bytes)" $((needed * 13 / 10)) "bytes of the origin"
	assert_le "$(origin_count requests)" 600 "requests for 800 files"
}

mkdir -p "$T/o"
origin_start
run_tests
