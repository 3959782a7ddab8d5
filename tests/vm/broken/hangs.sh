#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Waits without end in the kernel, where no signal reaches: for a file system that is frozen.
echo "ok - broken: it was well until then"
modprobe brd rd_nr=1 rd_size=32768
mke2fs -q /dev/ram0
mount /dev/ram0 /mnt
fsfreeze -f /mnt
dd if=/dev/zero of=/mnt/file bs=4k count=1 status=none &
sleep 1000
