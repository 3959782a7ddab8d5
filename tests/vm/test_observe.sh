#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The observer on the guest's kernel: what tests/system/test_observe.sh asks of this machine's own, with
# the hooks that it may not have here (fentry), over kernel NBD devices.
modprobe -a nbd fuse loop # no udev here that would make /dev/fuse and /dev/loop-control
export OBSERVE_WINDOWS=fentry OBSERVE_DEVICE=/dev/nbd
exec ../system/test_observe.sh
