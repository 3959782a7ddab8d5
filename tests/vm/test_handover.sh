#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The prototype of the hand-over: the server of a kernel NBD device is killed again and again, and the
# next one goes on with the same socket. For docs/design.md it was killed more often, over both kinds:
#   make vm TEST=handover CAIRN_VM_ENV="CAIRN_HANDOVER_KILLS=500 CAIRN_HANDOVER_KIND=unix"
. "$(dirname "$0")/../system/lib.sh"

KILLS=${CAIRN_HANDOVER_KILLS:-60}
KIND=${CAIRN_HANDOVER_KIND:-tcp}

that_no_read_is_lost_when_the_server_is_killed() {
	modprobe nbd
	timeout -k 5 200 "$BUILD/vm/bin/handover" kill "$KIND" /dev/nbd0 "$KILLS" >"$T/said" || {
		cat "$T/said"
		fail "a read was lost"
	}
	note "$(cat "$T/said")"
	assert_says "$(cat "$T/said")" " $KILLS kills, .* 0 failed, 0 wrong, none hung"
	# it would be no test if each kill came between two replies
	refute grep -q ' 0 times inside of a reply' "$T/said"
}

run_tests
