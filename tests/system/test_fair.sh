#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every read ends, and shares are fair: a greedy export leaves others theirs, a limit holds, and a read
# whose origin is silent fails or waits as configured, while everything else goes on.
# any event loop
. "$(dirname "$0")/lib.sh"

MIB=$((1 << 20))

# A device whose reads wait for a process that is stopped would hold up more than this test.
origins_go_on() { for p in "$T"/*.pid; do kill -CONT "$(cat "$p")" 2>/dev/null || true; done; }
trap 'rc=$?; set +e; origins_go_on; (exit $rc); clean_up' EXIT

# origin_start NAME: serves $T/o; its URL goes to $T/NAME.url. Slow or silent as it is told.
origin_start() {
	setsid "$BUILD/bench/origin" "$T/o" >"$T/$1.url" 2>"$T/$1.log" </dev/null &
	echo $! >"$T/$1.pid"
	disown $!
	wait_until 10 test -s "$T/$1.url" || fail "the origin $1 did not start"
}
origin_url() { cat "$T/$1.url"; }
origin_ask() { curl -sS --max-time 20 "$(origin_url "$1")/$2"; }
origin_silent() { trap origins_go_on EXIT; kill -STOP "$(cat "$T/$1.pid")"; }
origin_back() { kill -CONT "$(cat "$T/$1.pid")"; }

load() { timeout -k 5 120 "$BUILD/bench/nbdload" --stall 100 "$@"; }
nbd_socket() { echo "$T/d/$D/n.sock"; }

export_two() {
	uri "$(origin_url near)/greedy" --name greedy >/dev/null
	uri "$(origin_url near)/modest" --name modest >/dev/null
}

that_one_reader_of_an_export_is_not_kept_waiting_by_sixty_four_of_another() {
	cairnd_start a fill.threads=1 origin.connections=4 fill.readahead=0
	export_two
	origin_ask near '__set?delay_ms=20' >/dev/null
	load --verify "$T/o/greedy" "$(nbd_socket)" greedy rnd 65536 64 1 4 >"$T/greedy.json" &
	sleep 0.5
	load --verify "$T/o/modest" "$(nbd_socket)" modest rnd 65536 1 1 3 >"$T/modest.json"
	wait $!
	origin_ask near '__set?delay_ms=0' >/dev/null
	note "reads/s beside each other: 64 readers $(jq .iops "$T/greedy.json"), 1 reader $(jq .iops "$T/modest.json")"
	# first come, first served would give it 1 of 65; it asks for about 1 of 5
	assert_eq "$(jq -s '.[1].iops * 16 > .[0].iops' "$T/greedy.json" "$T/modest.json")" true "the one's share is over 1/17"
}

that_a_limit_bounds_what_an_export_takes_of_its_origin() {
	local before got start=$SECONDS
	cairnd_drop
	cairnd_start a
	export_two
	cairn limit modest 2MiB/s
	assert_eq "$(image modest .limit)" $((2 * MIB)) "the limit that status shows"
	assert_says "$(cairn status)" 'limit: 2.0 MiB/s'
	origin_ask near __reset >/dev/null
	load --verify "$T/o/modest" "$(nbd_socket)" modest rnd 65536 32 1 3 >/dev/null
	got=$(origin_ask near __stats | jq .body_bytes)
	note "$((got / 1024)) KiB in 3 to $((SECONDS - start)) s, with a limit of 2 MiB/s"
	# a second's worth at once, then the rate; and what was under way at the end
	assert_le "$got" $(((SECONDS - start + 3) * 2 * MIB)) "bytes of the origin"
	assert_le $((3 * MIB)) "$got" "bytes of the origin, at least"
	cairn limit modest off
	assert_eq "$(image modest .limit)" 0 "the limit after off"
	LIMIT=30 nbd_read "$(uri "$(origin_url near)/modest" --name modest)" 0 $((32 * MIB)) | cmp -n $((32 * MIB)) - "$T/o/modest"
}

that_a_limit_slower_than_the_deadline_fails_no_read() {
	cairnd_drop
	cairnd_start a fill.deadline=1 fill.readahead=0
	export_two
	cairn limit modest 1MiB/s
	nbd_read "$(uri "$(origin_url near)/modest" --name modest)" 0 $((4 * MIB)) | cmp -n $((4 * MIB)) - "$T/o/modest"
	nbd_read "$(uri "$(origin_url near)/modest" --name modest)" $((8 * MIB)) $((4 * MIB)) | cmp -n $((4 * MIB)) - <(tail -c +$((8 * MIB + 1)) "$T/o/modest")
	assert_eq "$(image modest .read_errors)" 0 "reads that failed"
}

that_limit_and_on_deadline_outlive_the_worker() {
	local w
	uri "$(origin_url near)/third" --name third --on-deadline wait >/dev/null
	cairn limit third 5MB/s
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 10 pid_gone "$w"
	wait_until 20 cairn status
	assert_eq "$(image third '"\(.limit) \(.on_deadline)"')" "5000000 wait" "limit and on_deadline after the worker's death"
	assert_eq "$(image modest '"\(.limit) \(.on_deadline)"')" "1048576 eio" "those of another export"
}

that_what_cannot_be_a_limit_is_refused() {
	assert_fails 'is no rate' cairn limit modest fast
	assert_fails 'is no rate' cairn limit modest 0
	assert_fails 'at least 1.0 MiB/s' cairn limit modest 1000
	assert_fails 'no export has the name' cairn limit nobody 5MB/s
	assert_fails 'takes eio or wait' cairn export "$(origin_url near)/third" --on-deadline never
	assert_eq "$(image modest .limit)" $MIB "the limit that stood"
}

# A reader of $1 (64 of them with $2), in the background; its pid goes to $READER.
reader() {
	load --verify "$T/o/$1" --ops "${2:-1}" "$(nbd_socket)" "$1" rnd 4096 "${2:-1}" 1 100 >"$T/$1.out" 2>&1 &
	READER=$!
}

patient() { [ "$(image "$1" '.reads_waiting > 0 and .deadlines_passed > 0')" = true ]; }

that_a_read_waits_until_its_origin_is_back() {
	local readers
	cairnd_drop
	cairnd_start a fill.deadline=2 fill.threads=1 fill.memory=8MiB nbd.miss_memory=4MiB
	origin_start far
	uri "$(origin_url far)/greedy" --name greedy --on-deadline wait >/dev/null
	uri "$(origin_url far)/third" --name third >/dev/null
	uri "$(origin_url near)/modest" --name modest >/dev/null
	origin_silent far
	reader greedy 64
	readers=$READER
	wait_until 20 patient greedy || fail "no read waits: $(image greedy .)"
	assert_says "$(cairn status)" 'on_deadline: wait; [0-9]+ reads wait'
	# the same origin, but on_deadline = eio
	assert_read_is_eio "$(uri "$(origin_url far)/third" --name third)" 0
	assert_eq "$(image third .deadlines_passed)" 1 "deadlines of the other export"
	# another origin: what waits holds neither memory nor connections for good
	nbd_read "$(uri "$(origin_url near)/modest" --name modest)" 0 $MIB | cmp -n $MIB - "$T/o/modest"
	assert_eq "$(image greedy .read_errors)" 0 "reads that failed while they waited"
	origin_back far
	wait "$readers" || fail "a reader that waited got: $(cat "$T/greedy.out")"
	assert_eq "$(image greedy '"\(.read_errors) \(.reads_waiting)"')" "0 0" "errors, and reads that still wait"
}

that_exports_and_the_daemon_go_while_reads_wait() {
	local readers start
	origin_silent far
	uri "$(origin_url far)/fourth" --name fourth --on-deadline wait >/dev/null 2>&1 &
	origin_back far
	wait $!
	origin_silent far
	reader fourth 64
	readers=$READER
	wait_until 20 patient fourth
	assert_fails 'clients connected' cairn detach fourth
	start=$SECONDS
	cairn detach fourth --force
	refute wait "$readers"
	assert_le $((SECONDS - start)) 10 "seconds until detach --force ended the readers"
	assert_fails 'no export' cairn limit fourth off
	origin_back far
	uri "$(origin_url far)/fourth" --name fourth --on-deadline wait >/dev/null
	origin_silent far
	reader fourth 64
	readers=$READER
	wait_until 20 patient fourth
	start=$SECONDS
	cairnd_stop
	refute wait "$readers"
	assert_le $((SECONDS - start)) 15 "seconds until the daemon stopped"
	origin_back far
}

that_a_killed_reader_of_a_device_ends_at_once_and_the_device_goes_at_any_time() {
	local dd start dev
	need_device
	need_tool nbdfuse
	cairnd_drop
	cairnd_start a fill.deadline=1 fill.readahead=0
	dev=$(cairn attach "$(origin_url far)/disk" --name disk --way nbdfuse --on-deadline wait)
	exec 8<"$dev" # as a mount holds it: the last to close a device waits for its reads
	origin_silent far
	dd if="$dev" of=/dev/null bs=4k count=1 skip=100 2>/dev/null &
	dd=$!
	wait_until 20 patient disk || fail "no read of the device waits"
	kill -KILL "$dd"
	wait_until 5 pid_gone "$dd" || fail "a killed reader still waits: $(cat "/proc/$dd/wchan")"
	assert_fails 'attached as .* detach it first' cairn export "$(origin_url far)/disk" --name disk --on-deadline eio
	assert_fails 'open' cairn detach disk
	dd if="$dev" of=/dev/null bs=4k count=1 skip=3000 2>/dev/null &
	dd=$!
	start=$SECONDS
	cairn detach disk --force
	wait_until 10 pid_gone "$dd" || fail "detach --force left a reader waiting"
	assert_le $((SECONDS - start)) 25 "seconds until the device had gone"
	exec 8<&-
	cairnd_stop
	origin_back far
}

mkdir -p "$T/o"
for f in greedy modest third fourth disk; do random_file "$T/o/$f" $((64 * MIB)) $f; done
origin_start near
run_tests
