#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What stays in a store that is too small: by policy, by quota, and because somebody said so.
# any event loop
. "$(dirname "$0")/lib.sh"

MIB=$((1 << 20))
LEN=$((40 * MIB))

present() { image "$1" .bytes_present; }
read_whole() { assert_image_equals "$(uri "file://$T/o/$1" --name "$1")" "$T/o/$1"; }

that_replayed_traces_hit_like_the_best_of_other_policies() {
	local table
	table=$(timeout 60 "$BUILD/bench/replay" --room 512) || fail "a bound is missed: $table"
	note "$(grep 'epochs over 2 x' <<<"$table")"
}

that_a_store_under_random_reads_holds_what_was_asked_for() {
	D=random
	local used wanted
	cairnd_start random store.size=64MiB
	uri "file://$T/o/large" --name large >/dev/null
	timeout -k 5 100 "$BUILD/bench/nbdload" --verify "$T/o/large" "$T/d/random/n.sock" large rnd 4096 8 1 2 >"$T/random.json"
	used=$(status .store.used_bytes) wanted=$(status .store.wanted_bytes)
	note "4 KiB at random over 8 x the store, $(jq .iops "$T/random.json") reads/s: $((wanted * 100 / used)) % of $((used / MIB)) MiB were asked for"
	assert_le $((48 * MIB)) "$used" "bytes in the store"
	assert_le $((used * 90 / 100)) "$wanted" "bytes that a reader asked for: at least 90 %"
	cairnd_stop
}

that_a_limit_of_the_store_holds() {
	D=limited
	cairnd_start limited store.size=128MiB
	read_whole a
	read_whole b
	assert_eq "$(present a)" $LEN "bytes of a without a limit"
	cairn limit a --store 32MiB
	assert_le "$(present a)" $((32 * MIB)) "bytes of a at once"
	assert_eq "$(image a .store_limit)" $((32 * MIB)) "the limit that status shows"
	assert_says "$(cairn status)" 'store: at most 32.0 MiB'
	read_whole a
	assert_le "$(present a)" $((32 * MIB)) "bytes of a after a whole read"
	assert_le $((16 * MIB)) "$(present a)" "bytes of a, at least"
	assert_eq "$(present b)" $LEN "bytes of b, which was not touched"
	cairn limit a --store 0
	read_whole a
	assert_eq "$(present a)" $LEN "bytes of a without a limit again"
	cairnd_stop
}

that_what_is_kept_stays_and_others_are_read_all_the_same() {
	D=kept
	cairnd_start kept store.size=64MiB fill.readahead=0
	read_whole a
	cairn limit a --keep on
	assert_says "$(cairn status)" 'store: kept'
	read_whole b
	assert_eq "$(present a)" $LEN "bytes of a beside a read of b"
	cairn limit b --keep on
	read_whole c
	assert_le "$(present c)" $((5 * MIB)) "bytes of c in a store of which the rest is kept"
	assert_le "$(status .store.used_bytes)" $((64 * MIB)) "bytes in the store"
}

that_both_outlive_the_worker() {
	D=kept
	cairn limit b --keep off --store 32MiB
	kill -9 "$(worker_pid)"
	wait_until 20 read_whole a || fail "the export did not come back"
	assert_eq "$(image a .keep) $(image b .keep) $(image b .store_limit)" "true false $((32 * MIB))" "a kept, b limited"
	read_whole c
	assert_eq "$(present a)" $LEN "bytes of a, kept over the worker's death"
}

that_what_is_let_go_makes_room() {
	D=kept
	local before
	before=$(status .store.evictions)
	cairn limit a --keep off
	read_whole c # whose extents go, the policy says: the old ones, or the newcomers
	assert_le $((before + 1)) "$(status .store.evictions)" "extents evicted"
}

that_an_export_that_ends_keeps_nothing() {
	D=kept
	local before
	cairn limit a --keep on
	read_whole a
	assert_eq "$(present a)" $LEN "bytes of a"
	cairn detach a
	before=$(status .store.evictions)
	read_whole c
	assert_le $((before + 1)) "$(status .store.evictions)" "extents evicted"
	uri "file://$T/o/a" --name a >/dev/null
	assert_eq "$(image a .keep)" false "keep of a, attached anew"
}

that_what_makes_no_sense_is_refused() {
	D=kept
	assert_fails 'at least 16.0 MiB' cairn limit b --store 1MiB
	assert_fails 'is no size' cairn limit b --store much
	assert_fails 'is on or off' cairn limit b --keep maybe
	assert_fails 'takes a name' cairn limit b
	assert_fails 'no export has the name' cairn limit nobody --keep on
	assert_eq "$(image b .store_limit)" $((32 * MIB)) "the limit that stood"
	cairnd_stop
}

mkdir "$T/o"
for i in a b c; do random_file "$T/o/$i" $LEN $i; done
random_file "$T/o/large" $((512 * MIB)) large
chmod -R a+rX "$T"
run_tests
