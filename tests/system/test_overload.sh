#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Overload makes reads slower and fails none: 10,000 cold reads at once, 1,000 exports, no descriptors
# left, more clients than are let in. Afterwards all is as it was before.
# any event loop
. "$(dirname "$0")/lib.sh"

MIB=$((1 << 20))
N=1000

origin_start() {
	setsid "$BUILD/bench/origin" "$T/o" >"$T/origin.url" 2>"$T/origin.log" </dev/null &
	disown $!
	wait_until 10 test -s "$T/origin.url" || fail "the origin did not start"
}
load() { timeout -k 5 150 "$BUILD/bench/nbdload" --stall 100 "$@"; }
fds() { find "/proc/$(worker_pid)/fd" -mindepth 1 | wc -l; }
anon_kib() { awk '/^Rss(Anon|Shmem):/ { n += $2 } END { print n + 0 }' "/proc/$1/status"; }
cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
fds_at_most() { [ "$(fds)" -le "$1" ]; }
has_a_reader() { [ "$(status .nbd_connections)" = 1 ]; }
idle() { [ "$(status .nbd_connections)" = 0 ]; }

that_ten_thousand_cold_reads_at_once_are_all_answered() {
	local w before most=0 now
	cairnd_start a
	uri "$(cat "$T/origin.url")/image" --name image >/dev/null
	w=$(worker_pid)
	before=$(fds)
	# each finds its block cold: 16 connections with 640 reads under way each, in no order
	load --verify "$T/o/image" --ops 12000 "$T/d/a/n.sock" image rnd 4096 640 16 140 >"$T/load" 2>&1 &
	while pid_alive $!; do
		now=$(anon_kib "$w" 2>/dev/null || echo 0)
		[ "$now" -le $most ] || most=$now
		sleep 0.1
	done
	wait $! || fail "reads failed: $(cat "$T/load")"
	note "10,240 reads under way: $((most / 1024)) MiB of memory at most"
	assert_le $most $((200 * 1024)) "KiB of RssAnon + RssShmem"
	assert_eq "$(image image '"\(.read_errors) \(.deadlines_passed)"')" "0 0" "reads that failed or were late"
	assert_eq "$(worker_pid)" "$w" "the worker's pid"
	wait_until 10 idle || fail "connections are left"
	# connections to the origin stay open for the next read
	wait_until 10 fds_at_most $((before + 40)) || fail "descriptors are left: $(fds) of $before"
}

# exports COUNT METHOD: each under a name of its own, in one process
exports() {
	timeout -k 5 120 /usr/bin/python3 - "$T/d/$D/c.sock" "$(cat "$T/origin.url")" "$@" <<-'PY'
		import http.client, json, socket, sys
		path, url, count, method = sys.argv[1:]

		class Control(http.client.HTTPConnection):
		    def connect(self):
		        self.sock = socket.socket(socket.AF_UNIX)
		        self.sock.connect(path)

		c = Control("localhost", timeout=60)
		for i in range(int(count)):
		    if method == "POST":
		        c.request("POST", "/v1/exports", json.dumps({"url": f"{url}/many/{i}", "name": f"n{i}"}))
		    else:
		        c.request("DELETE", f"/v1/exports/n{i}")
		    r = c.getresponse()
		    body = r.read()
		    if r.status // 100 != 2:
		        sys.exit(f"{method} of export {i}: {r.status} {body[:300]}")
	PY
}

# clients SOCKET COUNT: that many at once on exports n0.., each reads and compares a block of its own
clients() {
	timeout -k 5 120 /usr/bin/python3 - "$@" "$T/o/image" <<-'PY'
		import nbd, sys
		path, count, image = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "rb").read(65536)
		hs = []
		for i in range(count):
		    h = nbd.NBD()
		    h.set_export_name(f"n{i % 1000}")
		    h.connect_unix(path)
		    hs.append(h)
		for h in hs:
		    if h.pread(65536, 0) != image:
		        sys.exit("wrong bytes")
	PY
}

that_a_thousand_exports_are_served_outlive_a_worker_and_go_again() {
	local before w
	w=$(worker_pid)
	before=$(fds)
	exports "$N" POST
	assert_eq "$(status '.images | length')" $((N + 1)) "exports"
	clients "$T/d/a/n.sock" $((N - 100))
	assert_eq "$(status '[.images[] | select(.name != "image" and .reads.origin == 1)] | length')" $((N - 100)) "exports that were read"
	kill -KILL "$w" # the next one opens them all
	wait_until 10 pid_gone "$w"
	wait_until 60 cairn status || fail "no worker came up with so many exports"
	assert_eq "$(status '.images | length')" $((N + 1)) "exports after the worker's death"
	exports "$N" DELETE
	assert_eq "$(status '.images | length')" 1 "exports that are left"
	# the store's objects are as many as before, and closed
	assert_le "$N" "$(status .store.objects)" "objects in the store"
	wait_until 10 fds_at_most $((before + 40)) || fail "descriptors are left: $(fds) of $before"
}

that_devices_by_the_dozen_are_read_side_by_side_and_go_again() {
	local dev devs=() pids=() p i n=${CAIRN_TEST_DEVICES:-12} # each takes two processes
	need_device
	need_tool nbdfuse
	for i in $(seq "$n"); do
		dev=$(cairn attach "$(cat "$T/origin.url")/many/$i" --name "d$i" --way nbdfuse)
		devs+=("$dev")
	done
	for dev in "${devs[@]}"; do
		timeout -k 1 60 cmp -n 4194304 "$dev" "$T/o/image" &
		pids+=($!)
	done
	for p in "${pids[@]}"; do wait "$p"; done
	for i in $(seq "$n"); do cairn detach "d$i"; done
	assert_eq "$(status '.images | length')" 1 "exports that are left"
}

that_connections_wait_when_descriptors_are_short_and_nothing_fails() {
	local w ticks reader many
	D=low
	cairnd_config low nbd.threads=1 fill.threads=1 fill.readahead=0
	cairnd_launch low prlimit --nofile=160:160
	uri "$(cat "$T/origin.url")/image" --name image >/dev/null
	w=$(worker_pid)
	curl -sS "$(cat "$T/origin.url")/__set?delay_ms=50" >/dev/null # so that a busy worker is one that spins
	load --verify "$T/o/image" "$T/d/low/n.sock" image rnd 65536 1 1 8 >"$T/load" 2>&1 &
	reader=$!
	wait_until 10 has_a_reader || fail "the reader is not served"
	# 300 that only hold their connection: most have to wait outside
	timeout -k 1 30 /usr/bin/python3 - "$T/d/low/n.sock" <<-'PY' &
		import os, resource, socket, sys, time
		resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
		held = []
		for i in range(300):
		    s = socket.socket(socket.AF_UNIX)
		    s.setblocking(False)
		    try:
		        s.connect(sys.argv[1])
		    except BlockingIOError:
		        pass
		    held.append(s)
		time.sleep(4)
	PY
	many=$!
	wait_until 10 grep -q 'new connections wait' "$T/d/low/log" || fail "the worker did not run short of descriptors: $(fds)"
	assert_le "$(fds)" 160 "descriptors"
	ticks=$(cpu_ticks "$w")
	sleep 2
	ticks=$(($(cpu_ticks "$w") - ticks))
	note "$ticks ticks of CPU in 2 s while connections wait, $(fds) descriptors"
	assert_le $ticks 100 "ticks of CPU in 2 s: does it spin?"
	cairn status >/dev/null
	wait "$many"
	curl -sS "$(cat "$T/origin.url")/__set?delay_ms=0" >/dev/null
	wait "$reader" || fail "a reader that was served before failed: $(cat "$T/load")"
	wait_until 10 grep -q 'accepted again' "$T/d/low/log" || fail "connections are not accepted again"
	LIMIT=20 nbd_read "nbd+unix:///image?socket=$T/d/low/n.sock" 0 65536 | cmp -n 65536 - "$T/o/image"
	assert_eq "$(image image .read_errors)" 0 "reads that failed"
	assert_eq "$(grep -c 'new connections wait' "$T/d/low/log")" 1 "lines in the log about it"
	cairnd_stop
}

that_clients_over_the_limit_are_refused_with_the_reason() {
	local said
	D=few
	cairnd_start few nbd.max_connections=2
	uri "$(cat "$T/origin.url")/image" --name image >/dev/null
	said=$(timeout -k 1 30 /usr/bin/python3 - "$T/d/few/n.sock" <<-'PY'
		import nbd, sys
		hs = []
		for i in range(3):
		    h = nbd.NBD()
		    h.set_export_name("image")
		    try:
		        h.connect_unix(sys.argv[1])
		        hs.append(h)
		    except nbd.Error as e:
		        print(i, e.string)
	PY
	)
	assert_says "$said" '^2 .*(too many connections|policy)'
	cairnd_stop
}

mkdir -p "$T/o/many"
random_file "$T/o/image" $((512 * MIB))
for i in $(seq 0 999); do ln "$T/o/image" "$T/o/many/$i"; done
origin_start
run_tests
