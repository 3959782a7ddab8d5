#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# Clients that misbehave, a thousand at a time: others, and a mount, are served all the same, memory stays within its
# bounds, and when they are gone nothing of them is left.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../faults/lib.sh"

# Seen: 140 MiB. What they ask for without taking it would be 100 GiB.
MEMORY_MIB=300

# clients SCENARIO CASE: among them the readers of a mount, whose page cache is empty
clients() {
	local w most reader rc=0
	need_device
	need_filesystem erofs
	w=$(worker_pid)
	cairn mount "http://127.0.0.1:$HTTP/fs/img" "$MNT" --name fs
	(
		until [ -e "$T/over" ]; do
			diff -r "$T/tree" "$MNT"
			sleep 0.2
		done
	) &
	reader=$!
	timeout 150 "$FAULTS/clients" "$1" "$T/d/$D/n.sock" "$w" "$2" "$T/img.$2" "$2" "$CONTROL" >"$T/figures" 2>&1 || rc=$?
	touch "$T/over"
	wait $reader || fail "the mount's reader was hurt"
	rm "$T/over"
	cairn umount "$MNT"
	[ $rc = 0 ] || fail "$(cat "$T/figures")"
	note "$1: $(cat "$T/figures")"
	most=$(sed -n 's/.* before, \([0-9]*\) most.*/\1/p' "$T/figures")
	assert_le "$most" $MEMORY_MIB "MiB of memory at most"
	wait_until 30 eval "[ \"\$(image $2 .connections)\" = 0 ]" || fail "connections left: $(image "$2" .connections)"
	assert_image_equals "$(uri "http://127.0.0.1:$HTTP/$2/img" --name "$2")" "$T/img.$2"
	assert_eq "$(worker_pid)" "$w" "the worker's pid"
}

that_a_thousand_connections_are_served_and_the_one_too_many_refused() { clients a_thousand_at_once thousand; }
that_half_requests_hurt_nobody_and_half_handshakes_are_ended() { clients half_requests half; }
that_clients_that_never_read_their_replies_cost_bounded_memory() { clients never_reading deaf; }
that_clients_that_leave_in_mid_request_leave_nothing_behind() { clients gone_in_mid_request gone; }

mkdir -p "$T/pub" "$T/tree"
origin_start
cairnd_start a fill.deadline=30 fill.readahead=0
for i in $(seq 10); do random_file "$T/tree/file$i" 70000 "file$i"; done
publish_tree "$T/tree" fs
for c in thousand half deaf gone; do
	publish $c
	uri "http://127.0.0.1:$HTTP/$c/img" --name $c >/dev/null
done
run_tests
