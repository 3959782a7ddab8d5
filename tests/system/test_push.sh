#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Building, publishing and sealing: reproducible, hole-aware, invisible until done, and the digest is
# the one that the fsverity tool gives.
# any event loop
. "$(dirname "$0")/lib.sh"

digest_of() { fsverity digest --hash-alg=sha256 --block-size=65536 --compact "$1"; }
inspect() { cairn image inspect "$1" --json | jq -r "$2"; }

same_tree_same_digest() { # FS
	need_tool fsverity
	cairn image build "$T/tree" "$T/1.$1" --fs "$1"
	sleep 1.1 # whatever writes the time down is seen
	cairn image build "$T/tree" "$T/2.$1" --fs "$1"
	assert_eq "$(digest_of "$T/2.$1")" "$(digest_of "$T/1.$1")" "digest of the same tree built twice"
}

copied_tree_same_digest() { # FS
	need_root
	mkdir -p "$T/ram"
	mount -t tmpfs -o size=300m cairn-copy "$T/ram"
	cp -a "$T/tree" "$T/ram/copy"
	cairn image build "$T/ram/copy" "$T/3.$1" --fs "$1"
	umount "$T/ram"
	assert_eq "$(digest_of "$T/3.$1")" "$(digest_of "$T/1.$1")" "digest of a cp -a copy on another file system"
}

that_the_same_tree_gives_the_same_erofs_image_twice() { same_tree_same_digest erofs; }
that_a_copy_on_another_file_system_gives_the_same_erofs_image() { copied_tree_same_digest erofs; }
that_the_same_tree_gives_the_same_ext4_image_twice() { same_tree_same_digest ext4; }

# mke2fs takes readdir's order: where a copy can't be made to give the same image, the help says so.
that_a_copy_gives_the_same_ext4_image_or_the_help_says_why_not() {
	if ! (copied_tree_same_digest ext4); then
		mountpoint -q "$T/ram" && umount "$T/ram"
		assert_says "$(cairn image build --help)" 'ext4.*(order|reproduc|copy)|(order|reproduc|copy).*ext4'
	fi
}

that_build_refuses_to_overwrite_without_force() {
	echo precious >"$T/precious"
	assert_fails 'force' cairn image build "$T/tree" "$T/precious"
	assert_eq "$(cat "$T/precious")" precious "the file that was there"
	cairn image build "$T/tree" "$T/precious" --force
	assert_le 100000 "$(stat -c %s "$T/precious")" "bytes of the image built with --force"
}

that_build_names_a_missing_folder_and_an_unknown_file_system() {
	assert_fails "$T/nosuch" cairn image build "$T/nosuch" "$T/x.img"
	assert_fails 'erofs' cairn image build "$T/tree" "$T/x.img" --fs fat
	[ ! -e "$T/x.img" ] || fail "a failed build left an image"
}

that_the_digest_is_that_of_the_fsverity_tool_at_every_kind_of_length() {
	need_tool fsverity
	local n
	for n in 1 4095 4096 65535 65536 65537 131072 1048577 $((129 << 20)); do
		random_file "$T/n" "$n" "$n"
		cairn image push "$T/n" "$U/n$n"
		assert_eq "$(inspect "$U/n$n" .digest)" "sha256:$(digest_of "$T/n")" "digest of $n bytes"
		assert_eq "$(inspect "$U/n$n" .length)" "$n" "length"
	done
	cairn image verify "$U/n65537"
}

that_the_digest_of_an_image_with_holes_is_that_of_the_fsverity_tool() {
	need_tool fsverity
	truncate -s 1G "$T/sparse"
	local at
	for at in 0 130 131 600 1019; do dd if="$T/data" of="$T/sparse" bs=1M seek=$at conv=notrunc status=none; done
	truncate -s $(((1 << 30) + 12345)) "$T/sparse"
	cairn image push "$T/sparse" "$U/sparse"
	assert_eq "$(inspect "$U/sparse" .digest)" "sha256:$(digest_of "$T/sparse")" "digest"
	cairn image verify "$U/sparse"
}

that_holes_are_not_uploaded() {
	assert_le "$(blob_bytes '^sparse\.')" $((26 << 20)) "bytes in Blob of 1 GiB with 25 MiB of data"
	cairnd_start a
	assert_image_equals "$(uri "$U/sparse" --name sparse)" "$T/sparse"
	assert_le "$(status .counters.origin_get_bytes)" $((27 << 20)) "bytes fetched of 1 GiB with 25 MiB of data"
	assert_le "$(image sparse .bytes_present)" $((27 << 20)) "bytes in the store of 1 GiB with 25 MiB of data"
	cairnd_stop
}

that_an_image_of_nothing_but_a_hole_works() {
	truncate -s 100M "$T/hole"
	cairn image push "$T/hole" "$U/hole"
	assert_le "$(blob_bytes '^hole\.')" $((1 << 20)) "bytes in Blob"
	cairnd_launch a
	assert_image_equals "$(uri "$U/hole" --name hole)" "$T/hole"
	cairnd_stop
}

that_part_size_stripes_over_several_blobs() {
	random_file "$T/striped" $((70 << 20)) striped
	cairn image push "$T/striped" "$U/striped" --part-size 16MiB
	assert_le 5 "$("$AZ" get images/striped.cairn.json | jq '.blobs | map(select(.name | test("tree$") | not)) | length')" \
		"data blobs of 70 MiB at 16 MiB each, at least"
	cairn image verify "$U/striped"
	cairnd_launch a
	assert_image_equals "$(uri "$U/striped" --name striped)" "$T/striped"
	cairnd_stop
	assert_eq "$(inspect "$U/striped" .digest)" "sha256:$(digest_of "$T/striped")" "digest"
}

that_a_part_size_that_makes_no_sense_is_refused() {
	assert_fails 'part-size' cairn image push "$T/data" "$U/nonsense" --part-size 17
	assert_fails 'part-size' cairn image push "$T/data" "$U/nonsense" --part-size lots
	assert_eq "$(blob_names '^nonsense')" "" "blobs after a refused push"
}

that_a_killed_push_is_invisible_and_a_second_run_finishes() {
	random_file "$T/big" $((400 << 20)) big
	local pid delay seen=0
	cairnd_launch a
	for delay in 0.3 0.8 1.5; do
		timeout 120 "$CAIRN" image push "$T/big" "$U/big" >"$T/push.log" 2>&1 &
		pid=$!
		sleep "$delay"
		pkill -KILL -P $pid || true # the push itself: timeout's child
		wait $pid 2>/dev/null || seen=$((seen + 1))
		[ "$seen" = 0 ] || [ -z "$(blob_names '^big\.cairn\.json$')" ] || break
		assert_eq "$(blob_names '^big\.cairn\.json$')" "" "manifest of a push killed after $delay s"
		assert_fails 'not found|no such|does not exist|no image|no blob' cairn export "$U/big" --name big
		assert_says "$SAID" 'big'
		assert_fails 'not found|no such|does not exist|no image|no blob' cairn image inspect "$U/big"
	done
	assert_le 2 $seen "pushes killed at work"
	LIMIT=300 cairn image push "$T/big" "$U/big"
	cairn image verify "$U/big"
	assert_image_equals "$(uri "$U/big" --name big)" "$T/big"
	assert_le "$(blob_bytes '^big')" $((402 << 20)) "bytes in Blob: the killed pushes left nothing committed"
	cairnd_stop
}

that_pushing_the_same_image_again_is_no_error_and_sends_no_data() {
	local before
	before=$("$AZ" get images/big.cairn.json | jq -S .)
	local start=$SECONDS
	cairn image push "$T/big" "$U/big"
	assert_eq "$("$AZ" get images/big.cairn.json | jq -S .)" "$before" "the manifest"
	assert_le $((SECONDS - start)) 60 "seconds for a push of what is there"
}

that_pushing_another_image_under_a_name_in_use_is_refused() {
	assert_fails 'big' cairn image push "$T/striped" "$U/big"
	assert_says "$SAID" 'exist|already|another'
	cairn image verify "$U/big"
}

that_progress_without_a_terminal_is_plain_lines() {
	random_file "$T/p" $((100 << 20)) p
	cairn image push "$T/p" "$U/p" >"$T/progress" 2>&1
	assert_says "$(cat "$T/progress")" '([0-9]+ ?%|[KMG]i?B)'
	if grep -q $'\r\|\033' "$T/progress"; then fail "control characters: $(cat -v "$T/progress")"; fi
}

that_progress_on_a_terminal_shows_rate_and_time_left() {
	need_tool script
	random_file "$T/p2" $((300 << 20)) p2
	timeout 120 script -qefc "'$CAIRN' image push '$T/p2' '$U/p2'" "$T/typescript" </dev/null >/dev/null
	assert_says "$(cat -v "$T/typescript")" '[KMG]i?B/s'
	assert_says "$(cat -v "$T/typescript")" '\^M'
}

that_inspect_shows_what_the_manifest_says() {
	local text
	text=$(cairn image inspect "$U/striped")
	assert_says "$text" "$(digest_of "$T/striped")"
	assert_says "$text" "70(\.0)? MiB|$((70 << 20))"
}

that_push_to_a_folder_and_seal_beside_a_file_work_without_any_service() {
	mkdir -p "$T/folder"
	cairn image push "$T/striped" "file://$T/folder/striped"
	cairn image verify "file://$T/folder/striped"
	cp "$T/data" "$T/folder/plain.img"
	cairn image seal "file://$T/folder/plain.img"
	cairn image verify "file://$T/folder/plain.img"
	cairnd_launch a
	assert_image_equals "$(uri "file://$T/folder/striped" --name filestriped)" "$T/striped"
	assert_image_equals "$(uri "file://$T/folder/plain.img" --name fileplain)" "$T/data"
	assert_eq "$(image fileplain .verified)" true "verified"
	cairnd_stop
}

that_sealing_a_sparse_tebibyte_takes_under_30_s() {
	mkdir -p "$T/folder"
	truncate -s 1T "$T/folder/tib" || skip "this file system has no files of 1 TiB"
	python3 - "$T/folder/tib" <<-'PY'
		import os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY)
		chunk = os.urandom(4 << 20)
		for i in range(256):  # 1 GiB of data in 256 places
		    os.pwrite(fd, chunk, i * (4 << 30) + (i * 12345 << 12) % (2 << 30))
	PY
	sync -f "$T/folder/tib"
	local start end
	start=$(date +%s%N)
	cairn image seal "file://$T/folder/tib"
	end=$(date +%s%N)
	echo "sealed in $(((end - start) / 1000000)) ms"
	assert_le $(((end - start) / 1000000)) 30000 "ms to seal 1 TiB with 1 GiB of data"
	assert_eq "$(inspect "file://$T/folder/tib" .length)" $((1 << 40)) "length"
	cairnd_launch a
	local u
	u=$(uri "file://$T/folder/tib" --name tib)
	nbd_read "$u" $((200 * (4 << 30) + (200 * 12345 << 12) % (2 << 30))) 65536 >"$T/got"
	dd if="$T/folder/tib" bs=4096 skip=$(((200 * (4 << 30) + (200 * 12345 << 12) % (2 << 30)) / 4096)) count=16 status=none | cmp - "$T/got"
	nbd_read "$u" $(((1 << 40) - 65536)) 65536 | cmp -n 65536 - /dev/zero
	cairnd_stop
}

real_tree "$T/tree"
random_file "$T/data" $((5 << 20)) data
azurite_start
run_tests
