#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# `cairn image` in folders alone: no daemon, no service. Digests, reproducible builds, pushes that are
# killed, and every kind of damage that verify must name.
. "$(dirname "$0")/lib.sh"

img() { timeout -k 5 "${LIMIT:-300}" "$CAIRN" image "$@"; }
digest_of() { echo "sha256:$(fsverity digest --hash-alg=sha256 --block-size=65536 --compact "$1")"; }
url() { echo "file://$T/pub/$1"; }
blob() { echo "$T"/pub/"$1".*."$2"; } # blob NAME data|tree

flip() { # FILE OFFSET: its lowest bit
	python3 - "$1" "$2" <<-'PY'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(int(sys.argv[2]))
		    b = f.read(1)[0]
		    f.seek(int(sys.argv[2]))
		    f.write(bytes([b ^ 1]))
	PY
}

seconds_and_rss() { # COMMAND...: "MS KIB" of a command that must succeed
	python3 - "$@" <<-'PY'
		import resource, subprocess, sys, time
		t = time.monotonic()
		subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
		print(int((time.monotonic() - t) * 1000), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
	PY
}

# --- digests ----------------------------------------------------------------------------------

that_the_digest_is_the_fsverity_tools_at_every_kind_of_length() {
	need_tool fsverity
	local n
	for n in 1 4095 65535 65536 65537 131073 $(((128 << 20) - 1)) $((128 << 20)) $(((128 << 20) + 1)); do
		random_file "$T/n" "$n" "$n"
		assert_eq "$(img push -q "$T/n" "$(url "n$n")")" "$(digest_of "$T/n")" "digest of $n bytes"
	done
	img verify -q "$(url "n$n")"
}

that_holes_do_not_change_the_digest() {
	need_tool fsverity
	truncate -s 300M "$T/holes"
	dd if="$T/data" of="$T/holes" bs=1000 seek=140000 conv=notrunc status=none
	cp --sparse=never "$T/holes" "$T/dense"
	assert_eq "$(img push -q "$T/holes" "$(url holes)")" "$(digest_of "$T/dense")" "digest with holes"
	assert_eq "$(img push -q "$T/dense" "$(url dense)")" "$(digest_of "$T/dense")" "digest without"
	img verify -q "$(url holes)"
	assert_le "$(stat -c %s "$(blob holes data)")" $((6 << 20)) "bytes sent of 5 MiB of data"
	rm -f "$T/dense" "$T"/pub/dense*
}

that_a_sparse_tebibyte_is_published_in_seconds_and_in_little_memory() {
	local r
	truncate -s 1T "$T/tib" || skip "this file system has no files of 1 TiB"
	python3 - "$T/tib" <<-'PY'
		import os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY)
		chunk = os.urandom(4 << 20)
		for i in range(256):  # 1 GiB of data in 256 places
		    os.pwrite(fd, chunk, i * (4 << 30) + (i * 12345 << 12) % (2 << 30))
	PY
	r=$(seconds_and_rss "$CAIRN" image push "$T/tib" "$(url tib)" 2>/dev/null)
	echo "ms and KiB: $r"
	assert_le "${r% *}" 30000 "ms to push 1 TiB with 1 GiB of data"
	assert_le "${r#* }" $((400 << 10)) "KiB of memory"
	assert_le "$(stat -c %s "$(blob tib tree)")" $((64 << 20)) "bytes of tree sent"
	r=$(seconds_and_rss "$CAIRN" image verify "$(url tib)" 2>/dev/null)
	assert_le "${r% *}" 30000 "ms to verify it"
	rm -f "$T/tib" "$T"/pub/tib*
}

# --- builds -----------------------------------------------------------------------------------

same_on() { # FS OF A COPY: mkfs and mount it, copy the tree, compare both kinds of image
	local fs=$1 kind
	need_root
	mkdir -p "$T/m"
	if [ "$fs" = tmpfs ]; then
		mount -t tmpfs -o size=400m cairn-copy "$T/m"
	else
		need_tool "mkfs.$fs"
		need_filesystem "$fs"
		[ -e /dev/loop-control ] || skip "needs /dev/loop-control"
		truncate -s 512M "$T/$fs.disk"
		"mkfs.$fs" -q "$T/$fs.disk"
		mount -o loop "$T/$fs.disk" "$T/m" || skip "can't mount $fs here"
	fi
	cp -a "$T/tree" "$T/m/copy"
	for kind in erofs ext4; do
		assert_eq "$(img build -q "$T/m/copy" "$T/copy.$kind" --fs $kind --force)" "$(cat "$T/digest.$kind")" \
			"$kind image of a copy on $fs"
	done
	umount "$T/m"
}

that_the_same_tree_gives_the_same_image_twice() {
	local kind
	for kind in erofs ext4; do
		img build -q "$T/tree" "$T/1.$kind" --fs $kind >"$T/digest.$kind"
		sleep 1.1
		find "$T/tree" -type f -exec cat {} + >/dev/null # atimes
		chmod 755 "$T/tree"                              # a ctime
		assert_eq "$(img build -q "$T/tree" "$T/2.$kind" --fs $kind)" "$(cat "$T/digest.$kind")" "$kind image"
	done
}

that_a_copy_on_tmpfs_gives_the_same_image() { same_on tmpfs; }
that_a_copy_on_ext4_gives_the_same_image() { same_on ext4; }
that_a_copy_on_xfs_gives_the_same_image() { same_on xfs; }

that_an_image_holds_what_the_folder_held() {
	need_root
	local kind
	mkdir -p "$T/m"
	e2fsck -fn "$T/1.ext4" >"$T/e2fsck" 2>&1 || fail "$(cat "$T/e2fsck")"
	for kind in erofs ext4; do
		grep -qw $kind /proc/filesystems || modprobe $kind 2>/dev/null || continue
		mount -t $kind -o loop,ro "$T/1.$kind" "$T/m" || skip "can't mount $kind here"
		assert_eq "$(tree_hashes "$T/m")" "$(tree_hashes "$T/tree")" "what is in the $kind image"
		assert_eq "$(stat -c '%a %u %g %Y' "$T/m")" "$(stat -c '%a %u %g %Y' "$T/tree")" "its top folder"
		assert_eq "$(stat -c '%a %u %g %Y' "$T/m/private")" "600 1234 5678 1000000000" "an owner and a time"
		umount "$T/m"
	done
}

that_another_content_gives_another_image() {
	cp -a "$T/tree" "$T/tree2"
	touch -d '2001-01-01' "$T/tree2/private"
	refute [ "$(img build -q "$T/tree2" "$T/3.ext4" --fs ext4)" = "$(cat "$T/digest.ext4")" ]
}

that_build_never_harms_what_is_there() {
	echo precious >"$T/precious"
	assert_fails 'force' img build "$T/tree" "$T/precious"
	assert_eq "$(cat "$T/precious")" precious "the file that was there"
	assert_fails 'inside' img build "$T/tree" "$T/tree/x.img"
	assert_fails 'inside' img build "$T" "$T/x.img"
	assert_fails 'regular' img build "$T/tree" "$T/tree2" --force
	assert_fails 'No such' img build "$T/nosuch" "$T/x.img"
	assert_fails 'not a directory' img build "$T/precious" "$T/x.img"
	assert_fails 'No such' img build "$T/tree" "$T/nosuch/x.img"
	[ ! -e "$T/x.img" ] && [ ! -e "$T/x.img.tmp" ] || fail "a failed build left something"
}

that_an_interrupted_build_leaves_nothing() {
	local pid rc=0
	mkdir -p "$T/heavy"
	random_file "$T/heavy/f" $((1 << 30)) heavy
	"$CAIRN" image build "$T/heavy" "$T/heavy.img" >/dev/null 2>&1 &
	pid=$!
	wait_until 10 test -s "$T/heavy.img.tmp"
	kill -TERM $pid
	wait $pid || rc=$?
	assert_eq $rc 143 "exit status"
	[ ! -e "$T/heavy.img" ] && [ ! -e "$T/heavy.img.tmp" ] || fail "it left something"
	rm -rf "$T/heavy"
}

# --- pushes -----------------------------------------------------------------------------------

that_parts_stripe_an_image_over_blobs() {
	img push -q "$T/big" "$(url striped)" --part-size 16MiB
	assert_eq "$(ls "$T"/pub/striped.*.data.* | wc -l)" 7 "data blobs of 100 MiB by 16 MiB"
	img verify -q "$(url striped)"
	assert_eq "$(cat "$T"/pub/striped.*.data.* | cmp - "$T/big" && echo same)" same "the parts in order"
	assert_fails 'part-size' img push "$T/big" "$(url x)" --part-size 17
}

that_a_killed_push_shows_nothing_and_is_finished_by_the_next() {
	local pid sent i
	random_file "$T/huge" $((768 << 20)) huge
	for i in 1 2 3; do
		"$CAIRN" image push "$T/huge" "$(url killed)" --threads 2 >/dev/null 2>&1 &
		pid=$!
		wait_until 20 sh -c "ls -A '$T/pub' | grep -q 'killed.*data.cairn-stage'"
		sleep 0.$i
		kill -KILL $pid
		wait $pid 2>/dev/null || true
		[ ! -e "$T/pub/killed.cairn.json" ] || fail "published before it was killed: make the image larger"
		assert_fails 'no image' img inspect "$(url killed)"
	done
	sent=$(img push "$T/huge" "$(url killed)" 2>&1 | sed -n 's/.* at .*, \([0-9]*\)\..* sent$/\1/p')
	assert_le "$sent" 760 "MiB sent of 768, after three pushes that were killed"
	img verify -q "$(url killed)"
	rm -f "$T/huge" "$T"/pub/killed*
}

that_committed_data_is_taken_only_when_it_is_right() {
	rm "$T/pub/a.cairn.json"
	assert_says "$(img push "$T/big" "$(url a)" 2>&1)" ', 64.0 KiB sent'
	rm "$T/pub/a.cairn.json"
	flip "$(blob a data)" 50000000
	assert_says "$(img push "$T/big" "$(url a)" 2>&1)" ', 100.1 MiB sent'
	img verify -q "$(url a)"
}

that_the_same_image_again_is_no_error_and_another_one_is() {
	local before
	before=$(stat -c '%Y %i' "$T"/pub/a.*)
	assert_says "$(img push "$T/big" "$(url a)" 2>&1)" 'already published'
	assert_eq "$(stat -c '%Y %i' "$T"/pub/a.*)" "$before" "what was there"
	assert_fails 'already published' img push "$T/data" "$(url a)"
	cp "$T/big" "$T/other"
	flip "$T/other" 12345
	assert_fails 'already published.*sha256:.*sha256:.*another name' img push "$T/other" "$(url a)"
}

that_an_image_that_changes_while_it_is_pushed_is_not_published() {
	local writer
	cp "$T/big" "$T/moving"
	(while :; do date >>"$T/moving.log"; flip "$T/moving" 99000000; done) &
	writer=$!
	assert_fails 'changed' img push "$T/moving" "$(url moving)"
	kill $writer
	wait $writer 2>/dev/null || true
	[ ! -e "$T/pub/moving.cairn.json" ] || fail "it was published"
}

that_what_is_no_image_is_refused() {
	: >"$T/nothing"
	assert_fails 'empty' img push "$T/nothing" "$(url nothing)"
	cp "$T/nothing" "$T/pub/nothing"
	assert_fails 'empty' img seal "$(url nothing)"
	assert_fails 'regular' img push /dev/null "$(url null)"
	assert_fails 'regular' img push "$T/tree" "$(url dir)"
	assert_fails 'No such' img push "$T/nosuch" "$(url nosuch)"
	assert_fails 'no such' img seal "$(url nosuch)"
	assert_fails 'no image' img verify "$(url nosuch)"
	assert_fails 'without .cairn.json' img push "$T/data" "$(url x.cairn.json)"
	assert_eq "$(ls "$T"/pub/{nothing,null,dir,nosuch,x}.* 2>/dev/null)" "" "what refused pushes left"
}

that_a_blob_is_sealed_where_it_is() {
	need_tool fsverity
	cp "$T/data" "$T/pub/plain.img"
	assert_eq "$(img seal -q "$(url plain.img)")" "$(digest_of "$T/data")" "digest"
	assert_says "$(img seal "$(url plain.img)" 2>&1)" 'already'
	img verify -q "$(url plain.img)"
	flip "$T/pub/plain.img" 70000
	assert_fails '1 blocks are damaged, the first at byte 65536 ' img verify "$(url plain.img)"
	assert_fails 'already published' img seal "$(url plain.img)"
}

# --- damage -----------------------------------------------------------------------------------

that_a_flipped_byte_of_data_is_found_with_its_place() {
	flip "$(blob a data)" 70000000
	flip "$(blob a data)" 80000000
	assert_fails "2 blocks are damaged, the first at byte 69992448 of the image: byte 69992448 of .*a\..*data" \
		img verify "$(url a)"
	flip "$(blob a data)" 70000000
	flip "$(blob a data)" 80000000
	img verify -q "$(url a)"
}

that_a_flipped_byte_of_the_tree_is_found() {
	local at
	img push -q "$T/wide" "$(url wide)"
	for at in 5 70000 140000 196000; do
		flip "$(blob wide tree)" $at
		assert_fails 'tree block [0-9]+ does not match.*wide\..*tree' img verify "$(url wide)"
		flip "$(blob wide tree)" $at
	done
	img verify -q "$(url wide)"
}

that_a_truncated_blob_is_found() {
	local what
	for what in data tree; do
		cp "$(blob wide $what)" "$T/whole"
		truncate -s -1 "$(blob wide $what)"
		assert_fails "wide\..*$what is truncated" img verify "$(url wide)"
		rm "$(blob wide $what)"
		assert_fails "wide\..*, which the manifest names, is missing" img verify "$(url wide)"
		cp "$T/whole" "$T/pub/wide.$(jq -r '.digest[7:23]' "$T/pub/wide.cairn.json").$what"
	done
	assert_says "$(img verify "$(url wide)" 2>&1)" '2 blobs have another ETag'
}

that_the_tree_of_another_image_is_found() {
	cp "$T/wide" "$T/wide2"
	flip "$T/wide2" 100
	img push -q "$T/wide2" "$(url wide2)"
	cp "$(blob wide2 tree)" "$(blob wide tree)"
	assert_fails "tree block 0 does not match.*another image's tree" img verify "$(url wide)"
}

that_a_manifest_that_calls_data_a_hole_is_found() {
	jq '.parts = [{off: 0, len: .length, zero: true}]' "$T/pub/a.cairn.json" >"$T/pub/liar.cairn.json"
	assert_fails '1600 blocks are damaged.*hole' img verify "$(url liar)"
}

that_no_flipped_byte_of_a_manifest_passes_unseen() {
	local len off passed=0
	len=$(stat -c %s "$T/pub/a.cairn.json")
	for off in $(seq 3 $((len / 40)) $((len - 3))); do
		cp "$T/pub/a.cairn.json" "$T/pub/flip.cairn.json"
		flip "$T/pub/flip.cairn.json" "$off"
		# Only what is between values, or an ETag, may pass; then every block was right.
		if img verify -q "$(url flip)" >/dev/null 2>"$T/err"; then
			passed=$((passed + 1))
		else
			[ -s "$T/err" ] || fail "no text for a manifest with byte $off flipped"
		fi
	done
	assert_le $passed 12 "flipped manifests that changed nothing, of 40"
}

that_wrong_use_exits_with_2() {
	local c rc
	for c in '' nonsense push 'push x' 'push a b c' 'build a' 'seal' 'verify --threads 0 x' 'build a b --fs fat'; do
		rc=0
		# shellcheck disable=SC2086
		img $c >/dev/null 2>"$T/err" || rc=$?
		assert_eq $rc 2 "exit status of image $c"
		assert_says "$(cat "$T/err")" '^cairn: image'
	done
	assert_fails '\?' img push a b "https://x.blob.core.windows.net/c/n?sig=SECRET"
	if grep -q SECRET <<<"$SAID"; then fail "a signature in: $SAID"; fi
}

mkdir -p "$T/pub"
real_tree "$T/tree"
mkfifo "$T/tree/fifo"
echo private >"$T/tree/private"
chmod 600 "$T/tree/private"
chown 1234:5678 "$T/tree/private" 2>/dev/null || true
touch -d @1000000000 "$T/tree/private"
random_file "$T/data" $((5 << 20))
random_file "$T/big" $((100 << 20)) big
truncate -s 200M "$T/wide" # two leaf blocks under one
dd if="$T/data" of="$T/wide" bs=1M conv=notrunc status=none
dd if="$T/data" of="$T/wide" bs=1M seek=150 conv=notrunc status=none
timeout 60 "$CAIRN" image push -q "$T/big" "$(url a)" >/dev/null 2>&1 || true
run_tests
