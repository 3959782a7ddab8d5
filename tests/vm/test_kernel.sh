#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the other VM tests take for granted of the guest's kernel.
. "$(dirname "$0")/../system/lib.sh"

that_modules_load_by_name() {
	local m
	for m in nbd erofs loop fuse; do modprobe "$m"; done
	[ -b /dev/nbd0 ]
	need_filesystem erofs
}

that_types_of_the_kernel_and_its_modules_are_known() {
	bpftool btf dump file /sys/kernel/btf/vmlinux format raw >"$T/btf"
	grep -q "'btf_trace_block_bio_queue'" "$T/btf"
	modprobe nbd
	[ -s /sys/kernel/btf/nbd ]
}

that_files_can_be_read_past_the_page_cache() {
	random_file "$T/file" 1048576
	sync
	dd if="$T/file" of="$T/copy" bs=64k iflag=direct status=none
	cmp "$T/file" "$T/copy"
}

run_tests
