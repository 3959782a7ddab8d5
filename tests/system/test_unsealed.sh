#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Blobs that were never sealed, and sealed ones that somebody touched afterwards. A read may fail; it
# may never give bytes of another version.
. "$(dirname "$0")/lib.sh"

LEN=$((64 << 20))
FAR=$((60 << 20)) # far enough that no readahead from the start has brought it in

# A daemon without anything in its store; $D names it.
fresh() { D=$1; cairnd_drop "$1"; cairnd_start "$1" fill.readahead=0 image.manifest_max_age=0; }

block_of() { dd if="$1" bs=4096 skip=$(($2 / 4096)) count=1 status=none; }

that_a_plain_blob_attaches_and_is_shown_as_unverified() {
	fresh plain
	"$AZ" put images/plain "$T/one"
	assert_image_equals "$(uri "$U/plain" --name plain)" "$T/one"
	assert_eq "$(image plain .verified)" false "verified"
	assert_says "$(cairn status)" 'VERIFIED'
	assert_says "$(cairn status | grep plain)" '%  no '
	cairnd_stop
}

that_a_plain_blob_changed_under_us_gives_eio_and_a_reason() {
	fresh changed
	"$AZ" put images/changed "$T/one"
	local u
	u=$(uri "$U/changed" --name changed)
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	"$AZ" put images/changed "$T/two"
	assert_read_is_eio "$u" "$FAR"
	assert_says "$(image changed .last_error)" 'changed|no longer'
	assert_says "$(image changed .last_error)" 'changed'
	# what was read before the change is still what it was, or an error; never the new bytes
	nbd_read "$u" 0 4096 >"$T/again" 2>"$T/again.err" || assert_says "$(cat "$T/again.err")" EIO
	[ ! -s "$T/again" ] || cmp "$T/again" <(block_of "$T/one" 0)
	cairnd_stop
}

that_a_changed_plain_blob_is_another_image_after_a_restart() {
	D=changed
	cairnd_launch changed
	assert_image_equals "$(uri "$U/changed" --name anew --refresh)" "$T/two"
	assert_eq "$(image anew .verified)" false "verified"
	cairnd_stop
}

that_sealing_a_plain_blob_makes_it_verified() {
	need_tool fsverity
	fresh sealed
	"$AZ" put images/sealed "$T/one"
	uri "$U/sealed" --name before >/dev/null
	assert_eq "$(image before .verified)" false "verified before the seal"
	cairn detach before
	cairn image seal "$U/sealed"
	cairn image verify "$U/sealed"
	assert_image_equals "$(uri "$U/sealed" --name sealed --refresh)" "$T/one"
	assert_eq "$(image sealed .verified)" true "verified after the seal"
	assert_eq "$(image sealed .digest)" \
		"sha256:$(fsverity digest --hash-alg=sha256 --block-size=65536 --compact "$T/one")" "digest"
	assert_le "$(blob_bytes '^sealed')" $((LEN + (1 << 20))) "bytes in Blob: the seal copied no data"
	cairnd_stop
}

that_sealing_twice_changes_nothing() {
	local before
	before=$(cairn image inspect "$U/sealed" --json | jq -r .digest)
	cairn image seal "$U/sealed"
	assert_eq "$(cairn image inspect "$U/sealed" --json | jq -r .digest)" "$before" "digest"
}

that_a_sealed_blob_put_again_with_the_same_bytes_goes_on_working() {
	fresh same
	local u
	u=$(uri "$U/sealed" --name same)
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	"$AZ" put images/sealed "$T/one"
	nbd_read "$u" "$FAR" 4096 | cmp - <(block_of "$T/one" "$FAR")
	assert_image_equals "$u" "$T/one"
	assert_eq "$(image same .read_errors)" 0 "read errors"
	cairnd_stop
}

that_a_sealed_blob_put_again_with_other_bytes_gives_eio_where_they_differ() {
	fresh other
	local u
	u=$(uri "$U/sealed" --name other)
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	cp "$T/one" "$T/half" # the second half is another image's
	dd if="$T/two" of="$T/half" bs=1M skip=32 seek=32 conv=notrunc status=none
	"$AZ" put images/sealed "$T/half"
	nbd_read "$u" $((20 << 20)) 4096 | cmp - <(block_of "$T/one" $((20 << 20)))
	assert_read_is_eio "$u" "$FAR"
	assert_le 1 "$(status .counters.verify_failures)" "verification failures"
	assert_says "$(image other .last_error)" '(hash|verif|match)'
	assert_fails '(hash|verif|match|differ)' cairn image verify "$U/sealed"
	cairnd_stop
}

that_a_sealed_blob_of_another_length_gives_eio() {
	fresh shorter
	"$AZ" put images/sealed "$T/one"
	local u
	u=$(uri "$U/sealed" --name shorter)
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	"$AZ" truncate images/sealed $((LEN / 2))
	assert_read_is_eio "$u" "$FAR"
	[ -n "$(image shorter .last_error)" ] || fail "no reason in status"
	cairnd_stop
}

that_a_deleted_blob_gives_eio_and_what_is_in_the_store_stays() {
	fresh gone
	"$AZ" put images/sealed "$T/one"
	local u
	u=$(uri "$U/sealed" --name gone)
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	"$AZ" delete images/sealed
	assert_read_is_eio "$u" "$FAR"
	nbd_read "$u" 0 4096 | cmp - <(block_of "$T/one" 0)
	cairnd_stop
}

random_file "$T/one" "$LEN" one
random_file "$T/two" "$LEN" two
azurite_start
run_tests
