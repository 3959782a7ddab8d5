#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Other people's NBD clients against our server: libnbd's tools, qemu, fio.
. "$(dirname "$0")/lib.sh"

LEN=$((96 * 1024 * 1024 + 12345)) # not a multiple of anything

# 96 MiB: data, a hole of 24 MiB in the middle, and an end that is no whole block.
make_image() {
	random_file "$T/img" "$LEN"
	fallocate -p -o $((40 << 20)) -l $((24 << 20)) "$T/img"
	cairn image push "$T/img" "$U/img"
}

that_nbdinfo_shows_a_read_only_multi_conn_export() {
	local json
	json=$(nbdinfo --json "$(uri "$U/img" --name img)")
	assert_eq "$(jq -r '.exports[0]["export-size"]' <<<"$json")" $(((LEN + 4095) / 4096 * 4096)) "size"
	assert_eq "$(jq -r '.exports[0].is_read_only' <<<"$json")" true "read only"
	assert_eq "$(jq -r '.exports[0].can_multi_conn' <<<"$json")" true "multi-conn"
	assert_eq "$(jq -r '.exports[0].can_cache' <<<"$json")" true "cache"
	assert_eq "$(jq -r '.exports[0].can_trim' <<<"$json")" false "trim"
	assert_eq "$(jq -r .structured <<<"$json")" true "structured replies"
	assert_says "$(jq -c '.exports[0].contexts' <<<"$json")" 'base:allocation'
}

that_nbdinfo_lists_every_export() {
	uri "$U/img" --name img2 >/dev/null
	local names
	names=$(nbdinfo --list --json "nbd+unix:///?socket=$T/d/a/n.sock" | jq -r '.exports[]["export-name"]' | sort | xargs)
	assert_eq "$names" "img img2" "names listed"
	cairn detach img2
}

that_nbdinfo_maps_holes_as_zeros() {
	local zeros
	zeros=$(nbdinfo --map --json "$(uri "$U/img" --name img)" |
		jq '[.[] | select(.type % 4 >= 2) | .length] | add')
	assert_le $((23 << 20)) "$zeros" "bytes mapped as zeros, at least the hole's whole blocks"
	assert_le "$zeros" $(((24 << 20) + 4096)) "bytes mapped as zeros, at most the hole and the tail"
}

that_nbdcopy_copies_the_whole_image() { assert_image_equals "$(uri "$U/img" --name img)" "$T/img"; }

that_nbdcopy_with_four_connections_copies_the_whole_image() {
	timeout 120 nbdcopy --connections=4 --requests=64 --request-size=262144 "$(uri "$U/img" --name img)" "$T/copy"
	cmp -n "$LEN" "$T/copy" "$T/img"
	rm "$T/copy"
}

that_random_reads_of_nbdsh_match() {
	nbd_shell -u "$(uri "$U/img" --name img)" -c "
import random
want = open('$T/img', 'rb').read()
want += bytes(h.get_size() - len(want))
random.seed(7)
for i in range(2000):
    n = random.choice((1, 511, 512, 4096, 65535, 65536, 131073, 1 << 20))
    off = random.randrange(0, len(want) - n + 1)
    got = h.pread(n, off)
    assert got == want[off:off + n], f'{n} bytes at {off} differ'
"
}

that_a_write_is_refused_and_the_connection_lives() {
	nbd_shell -u "$(uri "$U/img" --name img)" -c "
h.set_strict_mode(0)
for cmd in (lambda: h.pwrite(b'x' * 512, 0), lambda: h.trim(4096, 0), lambda: h.zero(4096, 0)):
    try:
        cmd()
    except nbd.Error as e:
        assert e.errno in ('EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP'), e.errno
    else:
        raise Exception('a write went through')
assert h.pread(4096, 0) == open('$T/img', 'rb').read(4096)
"
}

that_a_read_beyond_the_end_is_refused_and_the_connection_lives() {
	nbd_shell -u "$(uri "$U/img" --name img)" -c "
h.set_strict_mode(0)
for n, off in ((4096, h.get_size()), (4096, h.get_size() - 1), (1, 1 << 62), (512, (1 << 64) - 512)):
    try:
        h.pread(n, off)
    except nbd.Error as e:
        assert e.errno == 'EINVAL', e.errno
    else:
        raise Exception(f'{n} bytes at {off} were read')
assert h.pread(4096, 0) == open('$T/img', 'rb').read(4096)
"
}

that_a_wrong_export_name_is_refused() {
	uri "$U/img" --name img >/dev/null
	assert_fails 'export|unknown|not found|server' timeout 20 nbdinfo "nbd+unix:///nosuch?socket=$T/d/a/n.sock"
}

that_cache_brings_a_range_in() {
	cairn detach img
	local gets
	nbd_shell -u "$(uri "$U/img" --name img)" -c "h.cache(1 << 20, 0)"
	wait_until 20 eval '[ "$(image img .bytes_present)" -ge $((1 << 20)) ]' || fail "CACHE brought nothing in"
	gets=$(origin_gets)
	nbd_read "$(uri "$U/img" --name img)" 0 $((1 << 20)) | cmp -n $((1 << 20)) - "$T/img"
	assert_eq "$(origin_gets)" "$gets" "what was asked of Blob for a range brought in before"
}

that_qemu_img_shows_and_compares_it() {
	need_tool qemu-img
	local u="nbd+unix:///img?socket=$T/d/a/n.sock"
	uri "$U/img" --name img >/dev/null
	assert_eq "$(timeout 60 qemu-img info --output=json -f raw "$u" | jq '.["virtual-size"]')" \
		$(((LEN + 4095) / 4096 * 4096)) "virtual size"
	cp "$T/img" "$T/img.padded"
	truncate -s $(((LEN + 4095) / 4096 * 4096)) "$T/img.padded"
	timeout 120 qemu-img compare -f raw -F raw "$u" "$T/img.padded"
	rm "$T/img.padded"
}

# fio writes a file with checksums in every block; read through NBD they must all be right.
that_fio_verifies_what_it_wrote() {
	need_tool fio
	[[ $(fio --enghelp) == *nbd* ]] || skip "this fio has no nbd engine"
	(
		cd "$T"
		timeout 120 fio --name=w --filename="$T/fio.img" --size=64m --bs=16k --rw=randwrite --randseed=5 \
			--ioengine=psync --verify=crc32c --verify_pattern=%o --do_verify=0 --end_fsync=1 >"$T/fio.out"
		cairn image push "$T/fio.img" "$U/fio.img"
		uri "$U/fio.img" --name fio >/dev/null
		timeout 120 fio --name=w --ioengine=nbd --uri="nbd+unix:///fio?socket=$T/d/a/n.sock" --size=64m --bs=16k \
			--rw=randread --randseed=5 --iodepth=32 --verify=crc32c --verify_pattern=%o --verify_fatal=1 \
			--output-format=json --output="$T/fio.json" || { cat "$T/fio.json"; fail "fio found wrong bytes"; }
		assert_eq "$(jq '.jobs[0].error' "$T/fio.json")" 0 "fio's error"
		assert_eq "$(jq '.jobs[0].read.io_bytes' "$T/fio.json")" $((64 << 20)) "bytes that fio read and verified"
	)
}

that_clients_coming_and_going_leave_nothing_behind() {
	local u i
	u=$(uri "$U/img" --name img)
	for i in $(seq 20); do timeout 20 nbdinfo --size "$u" >/dev/null; done
	wait_until 10 eval '[ "$(image img .connections)" = 0 ]' || fail "connections left: $(image img .connections)"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
}

azurite_start
make_image
cairnd_start a
run_tests
