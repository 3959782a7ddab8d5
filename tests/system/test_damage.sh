#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Damage in Blob: flipped bytes, truncated and exchanged blobs, manifests that lie. Every one is a
# clear error; no wrong byte is ever given out, and the daemon lives.
# any event loop
. "$(dirname "$0")/lib.sh"

# A daemon with an empty store for each damage; D names it.
fresh() { D=$1; cairnd_drop "$1"; cairnd_start "$1" fill.readahead=0 image.manifest_max_age=0; }
done_with() {
	cairn status --json >/dev/null || fail "the daemon does not answer any more"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	rm -rf "$T/d/$D"
}

# publish NAME FILE: pushes and sets DATA, TREE and MANIFEST to the blobs' names
publish() {
	local n
	for n in $(blob_names "^$1\."); do "$AZ" delete "images/$n"; done
	cairn image push "$2" "$U/$1"
	DATA=$(blob_names "^$1\.[0-9a-f]{16}\.data$")
	TREE=$(blob_names "^$1\.[0-9a-f]{16}\.tree$")
	MANIFEST=$1.cairn.json
	"$AZ" get "images/$MANIFEST" "$T/$MANIFEST"
	[ -n "$DATA" ] && [ -n "$TREE" ] || fail "blobs of $1: $(blob_names "^$1")"
}

# where_in_blob data|tree OFFSET: where a byte of the image (or tree) is in its blob
where_in_blob() {
	local parts=.parts
	[ "$1" = data ] || parts=.tree.parts
	jq -r --argjson o "$2" "$parts"'[] | select(.off <= $o and $o < .off + .len) | .blob_off + $o - .off' "$T/$MANIFEST"
}

block_of() { dd if="$1" bs=65536 skip=$(($2 / 65536)) count=1 status=none; }

# Every block is either right or EIO. $3 = least number of failing reads.
assert_right_or_eio() { # URI FILE LEAST
	timeout 120 /usr/bin/python3 - "$1" "$2" "$3" <<-'PY'
		import sys, nbd
		h = nbd.NBD(); h.connect_uri(sys.argv[1])
		want = open(sys.argv[2], "rb").read()
		errors = 0
		for off in range(0, len(want), 65536):
		    n = min(65536, len(want) - off)
		    try:
		        got = h.pread(n, off)
		    except nbd.Error as e:
		        if e.errno != "EIO":
		            sys.exit(f"block at {off}: {e.errno}, wanted EIO")
		        errors += 1
		        continue
		    if got != want[off:off + n]:
		        sys.exit(f"WRONG BYTES at {off}")
		if errors < int(sys.argv[3]):
		    sys.exit(f"{errors} failing blocks, wanted at least {sys.argv[3]}")
		print(f"{errors} of {(len(want) + 65535) // 65536} blocks failed")
	PY
}

that_one_flipped_byte_in_data_fails_its_block_and_no_other() {
	publish data "$T/img"
	"$AZ" flip "images/$DATA" "$(where_in_blob data $((3 * 65536 + 77)))"
	fresh data
	local u
	u=$(uri "$U/data" --name data)
	assert_read_is_eio "$u" $((3 * 65536))
	nbd_read "$u" 0 65536 | cmp - <(block_of "$T/img" 0)
	nbd_read "$u" $((4 * 65536)) 65536 | cmp - <(block_of "$T/img" $((4 * 65536)))
	assert_eq "$(assert_right_or_eio "$u" "$T/img" 1)" "1 of 80 blocks failed" "failing blocks"
	assert_le 1 "$(status .counters.verify_failures)" "verification failures counted"
	assert_says "$(image data .last_error)" 'hash|verif|match'
	done_with
}

that_image_verify_finds_one_flipped_byte_in_data() {
	publish data "$T/img"
	cairn image verify "$U/data"
	"$AZ" flip "images/$DATA" "$(where_in_blob data $((5 * 65536)))"
	assert_fails 'hash|verif|match|differ|damage' cairn image verify "$U/data"
	assert_says "$SAID" 'data'
}

that_a_mended_blob_is_read_again() {
	publish mend "$T/img"
	local at
	at=$(where_in_blob data 100)
	"$AZ" flip "images/$DATA" "$at"
	fresh mend
	local u
	u=$(uri "$U/mend" --name mend)
	assert_read_is_eio "$u" 0
	"$AZ" flip "images/$DATA" "$at"
	assert_image_equals "$u" "$T/img"
	done_with
}

# The tree of this image has two leaf blocks under one root block: only what is below may fail.
that_one_flipped_byte_in_a_leaf_of_the_tree_fails_what_is_below_it() {
	publish leaf "$T/wide"
	local leaf=$((2 * 65536)) u # root, leaf 0, leaf 1
	"$AZ" flip "images/$TREE" "$(where_in_blob tree $((leaf + 100)))"
	fresh leaf
	u=$(uri "$U/leaf" --name leaf)
	nbd_read "$u" 0 65536 | cmp - <(block_of "$T/wide" 0)
	assert_read_is_eio "$u" $((150 << 20))
	assert_fails 'tree|hash|verif|match' cairn image verify "$U/leaf"
	done_with
}

that_one_flipped_byte_in_the_root_block_of_the_tree_fails_every_read() {
	publish root "$T/wide"
	"$AZ" flip "images/$TREE" "$(where_in_blob tree 10)"
	fresh root
	if cairn export "$U/root" --name root >"$T/uri" 2>"$T/err"; then
		assert_read_is_eio "$(cat "$T/uri")" 0
		assert_read_is_eio "$(cat "$T/uri")" $((150 << 20))
	else
		assert_says "$(cat "$T/err")" 'tree'
	fi
	done_with
}

that_a_truncated_tree_is_an_error() {
	publish short "$T/wide"
	"$AZ" truncate "images/$TREE" 70000
	fresh short
	if cairn export "$U/short" --name short >"$T/uri" 2>"$T/err"; then
		assert_read_is_eio "$(cat "$T/uri")" $((150 << 20))
		assert_says "$(image short .last_error)" 'tree'
	else
		assert_says "$(cat "$T/err")" 'tree'
	fi
	assert_fails 'tree' cairn image verify "$U/short"
	done_with
}

that_the_tree_of_another_image_is_an_error() {
	publish mine "$T/img"
	local tree=$TREE
	publish theirs "$T/other"
	"$AZ" get "images/$TREE" "$T/tree.theirs"
	"$AZ" put "images/$tree" "$T/tree.theirs"
	fresh mine
	if cairn export "$U/mine" --name mine >"$T/uri" 2>"$T/err"; then
		assert_eq "$(assert_right_or_eio "$(cat "$T/uri")" "$T/img" 80)" "80 of 80 blocks failed" "failing blocks"
	else
		assert_says "$(cat "$T/err")" 'tree|hash|verif'
	fi
	done_with
}

that_the_data_of_another_image_is_an_error() {
	publish mine "$T/img"
	local data=$DATA
	publish theirs "$T/other"
	"$AZ" get "images/$DATA" "$T/data.theirs"
	"$AZ" put "images/$data" "$T/data.theirs"
	fresh mine
	assert_eq "$(assert_right_or_eio "$(uri "$U/mine" --name mine)" "$T/img" 80)" "80 of 80 blocks failed" "failing blocks"
	done_with
}

# Any single flipped bit of the manifest: refused, or harmless (an ETag, which only guards).
that_no_flipped_byte_in_the_manifest_gives_wrong_bytes() {
	publish man "$T/img"
	cp "$T/$MANIFEST" "$T/man.orig"
	local len off refused=0
	len=$(stat -c %s "$T/man.orig")
	fresh man
	for off in $(seq 0 $((len / 48 + 1)) $((len - 1))); do
		python3 -c 'import sys; b = bytearray(open(sys.argv[1], "rb").read()); b[int(sys.argv[3])] ^= 1
open(sys.argv[2], "wb").write(b)' "$T/man.orig" "$T/man.bad" "$off"
		"$AZ" put "images/$MANIFEST" "$T/man.bad"
		if cairn export "$U/man" --name "m$off" --refresh >"$T/uri" 2>"$T/err"; then
			assert_right_or_eio "$(cat "$T/uri")" "$T/img" 0 >/dev/null
			cairn detach "m$off"
		else
			[ -s "$T/err" ] || fail "no text for a manifest with byte $off flipped"
			refused=$((refused + 1))
		fi
	done
	assert_le 20 $refused "flipped manifests refused, of 48"
	done_with
}

# lie NAME REGEX JQ-FILTER [TEXT-FILTER]: a manifest changed by the filter is refused by daemon and CLI
lie() {
	jq -c "$3" "$T/true.cairn.json" | sed -E "${4-}" >"$T/lie.json"
	cmp -s "$T/lie.json" <(jq -c . "$T/true.cairn.json") && fail "the filter changed nothing: $3"
	"$AZ" put "images/$1.cairn.json" "$T/lie.json"
	assert_fails "$2" cairn image inspect "$U/$1"
	assert_says "$SAID" "$1"
	assert_fails "$2" cairn export "$U/$1" --name "$1"
	assert_says "$SAID" "$1"
}

that_manifests_that_lie_are_refused() {
	publish true "$T/img"
	fresh liars
	lie len63 'length|2\^50' '.' 's/"length":[0-9]+,/"length":9223372036854775808,/'
	lie len0 'length' '.length = 0'
	lie negative 'length' '.length = -5'
	lie fraction 'length' '.length += 0.5'
	lie longer 'digest|length|parts|tree' '.length += 65536'
	lie shortdigest 'digest' '.digest |= .[:40]'
	lie longdigest 'digest' '.digest += "00"'
	lie nodigest 'digest' 'del(.digest)'
	lie otherroot 'digest|root' '.root_hash |= (.[:62] + (if .[62:] == "00" then "11" else "00" end))'
	lie overlap 'part' '.parts = [.parts[0] | (.len = 131072), (.off = 65536 | .len -= 65536)]'
	lie gap 'part' '.parts = [.parts[0] | (.len = 65536), (.off = 131072 | .len -= 131072)]'
	lie ends_early 'part' '.parts[0].len -= 65536'
	lie ends_late 'part' '.parts[0].len += 65536'
	lie no_parts 'part' '.parts = []'
	lie blob_index 'blob' '.parts[0].blob = 99'
	lie escape 'name|blob' '.blobs[0].name = "../elsewhere"'
	lie absolute 'name|blob' '.blobs[0].name = "/etc/passwd"'
	lie scheme 'name|blob' '.blobs[0].name = "http://elsewhere/x"'
	lie tree_length 'tree' '.tree.length += 65536'
	lie tree_parts 'tree' '.tree.parts = []'
	lie newer 'upgrade|newer|version' '.version = 99 | .min_reader = 99'
	lie algorithm 'hash|sha256' '.hash = "md5"'
	lie blocksize 'block' '.block_size = 4096'
	lie format 'format|manifest' '.format = "something"'
	lie notjson 'JSON|valid' '.' 's/^\{/[/'
	done_with
}

that_a_huge_manifest_is_refused() {
	head -c $((20 << 20)) /dev/zero | tr '\0' ' ' >"$T/huge"
	"$AZ" put images/huge.cairn.json "$T/huge"
	fresh huge
	assert_fails 'manifest|large|bytes' cairn export "$U/huge" --name huge
	done_with
}

that_an_image_of_no_bytes_is_refused() {
	: >"$T/nothing"
	assert_fails 'empty|0 bytes|no bytes' cairn image push "$T/nothing" "$U/nothing"
	assert_eq "$(blob_names '^nothing')" "" "blobs after a refused push"
	"$AZ" put images/nothing "$T/nothing"
	fresh nothing
	assert_fails 'empty|0 bytes|no bytes' cairn export "$U/nothing" --name nothing
	assert_fails 'empty|0 bytes|no bytes' cairn image seal "$U/nothing"
	done_with
}

random_file "$T/img" $((5 << 20))
random_file "$T/other" $((5 << 20)) other
truncate -s 200M "$T/wide"
dd if="$T/img" of="$T/wide" conv=notrunc status=none
dd if="$T/img" of="$T/wide" bs=1M seek=150 conv=notrunc status=none
azurite_start
run_tests
