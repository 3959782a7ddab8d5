#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A server of one link, killed at every system call of a recorded run and at random moments
# (link_kill): the successor goes on at the very byte. CAIRN_LINK_KILLS=N kills so often at random.
. "$(dirname "$0")/lib.sh"

PROGRAM=$BUILD/system/link_kill
[ -x "$PROGRAM" ] || { echo "no $PROGRAM: run it through make system"; exit 1; }
if [ "${CAIRN_LOOP:-auto}" = auto ]; then KILLS=${CAIRN_LINK_KILLS:-1000}; else KILLS=${CAIRN_LINK_KILLS:-200}; fi

killed() { # KIND
	local out rc=0
	out=$(timeout -k 5 $((200 + KILLS)) "$PROGRAM" "$1" 40 "$KILLS" 2>&1) || rc=$?
	[ $rc = 0 ] || fail "link_kill ended with $rc: $out"
	# it would prove nothing had it not hit the middle of things
	assert_says "$out" ' [1-9][0-9]* in a reply, [1-9][0-9]* with requests to answer again'
	note "$1: $(tr '\n' ';' <<<"$out")"
}

that_simple_replies_to_requests_in_pieces_go_on_at_the_very_byte() {
	killed simple
}

that_structured_replies_to_libnbd_go_on_at_the_very_byte() {
	killed structured
}

run_tests
