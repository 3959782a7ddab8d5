#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The kernel's own client, and a server of its connection that is killed at every system call of a
# recorded run, from the first that touches the connection, and at random moments. For docs/design.md it was killed more often:
#   make vm TEST=link_killed CAIRN_VM_ENV="CAIRN_LINK_KILLS=1000 CAIRN_LINK_READS=40"
. "$(dirname "$0")/../system/lib.sh"

KILLS=${CAIRN_LINK_KILLS:-30}
READS=${CAIRN_LINK_READS:-3}

that_readers_of_a_device_see_nothing_of_its_killed_servers() {
	modprobe nbd
	timeout -k 5 800 "$BUILD/system/link_kill" /dev/nbd0 "$READS" "$KILLS" >"$T/said" 2>&1 || {
		cat "$T/said"
		fail "a read failed, was wrong or stood still"
	}
	note "$(tr '\n' ';' <"$T/said")"
	# it would prove nothing had it not hit the middle of things
	assert_says "$(cat "$T/said")" ' with requests to answer again'
	refute grep -q ' 0 in a reply, 0 with' "$T/said"
}

run_tests
