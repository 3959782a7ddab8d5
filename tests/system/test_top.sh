#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# cairn top and cairn heat: what they show of a mounted image, and how they leave the terminal.
. "$(dirname "$0")/lib.sh"

HOT=$((24 << 20))

prepare() {
	mkdir -p "$T/tree/train"
	random_file "$T/tree/train/hot.bin" $HOT hot
	random_file "$T/tree/train/cold.bin" $HOT cold
	echo small >"$T/tree/small"
	cairn image build "$T/tree" "$T/img" --quiet
	cairn image push "$T/img" "file://$T/pushed" --quiet
}
[ -e "$T/img" ] || prepare >/dev/null

# Mounts the image as `data`, in a daemon that observes.
mounted() {
	need_device
	need_filesystem erofs
	cairnd_drop
	cairnd_start a
	[ "$(cairn top --json --no-names --interval 0.1 | jq .hook_bits)" != 0 ] ||
		skip "$(cairn top --json --no-names --interval 0.1 | jq -r .hooks)"
	cairn mount "file://$T/pushed" "$MNT" --name data
}

# Reads a file as one whose pages are not cached.
read_cold() {
	dd if="$MNT/$1" iflag=nocache count=0 status=none
	cat "$MNT/$1" >/dev/null
}

top_json() { cairn top --json "$@"; }

that_top_names_the_hot_file_and_its_stream() {
	mounted
	local o i
	for i in 1 2 3 4; do read_cold train/hot.bin; done
	o=$(top_json)
	assert_eq "$(jq -r '.images[0].hottest | map(.file) | map(select(. == "train/hot.bin")) | length > 3' <<<"$o")" true \
		"hot.bin among the hottest"
	assert_eq "$(jq -r '.images[0].hottest[0].file' <<<"$o")" train/hot.bin "the hottest"
	# but for the extent that both have a part in
	assert_le "$(jq '.images[0].hottest | map(select(.file == "train/cold.bin")) | length' <<<"$o")" 1 "extents of cold.bin"
	assert_eq "$(jq -r '.images[0].streams[] | select(.comm == "cat") | "\(.file) \(.verdict)"' <<<"$o" | sort -u)" \
		"train/hot.bin sequential" "streams of cat"
	assert_eq "$(jq -r '.images[0].mounted_on' <<<"$o")" "$MNT" "mount point"
	assert_eq "$(jq .events_lost <<<"$o")" 0 "events lost"
	assert_says "$(jq -r .hooks <<<"$o")" requests
	cairn umount "$MNT"
}

that_names_are_known_on_ext4_too() {
	need_tool mke2fs
	mounted
	cairn umount "$MNT"
	cairn image build "$T/tree" "$T/img4" --fs ext4 --quiet --force
	cairn mount "file://$T/img4" "$MNT" --name four
	read_cold train/hot.bin
	read_cold train/hot.bin
	assert_eq "$(top_json | jq '.images[0].hottest | map(.file) | index("train/hot.bin") != null')" true "hot.bin by name"
	cairn umount "$MNT"
}

that_the_page_cache_hit_share_is_high_when_all_is_cached() {
	mounted
	cat "$MNT/train/hot.bin" >/dev/null
	local end=$((SECONDS + 30)) share pid
	while :; do cat "$MNT/train/hot.bin" >/dev/null; done &
	pid=$!
	# hits are looked at a share of the time only
	share=$(top_json --no-names --interval 2.5 | jq '.images[0].page_cache.hit_share')
	kill $pid
	wait $pid 2>/dev/null || true
	[ $SECONDS -lt $end ] || fail "it took too long"
	[ "$(jq -n "$share > 0.9")" = true ] || fail "hit share $share"
	cairn umount "$MNT"
}

that_latency_is_told_by_source() {
	mounted
	local o
	read_cold train/hot.bin
	o=$(top_json --no-names --interval 0.1)
	for s in local origin; do
		assert_eq "$(jq ".sources.$s.latency_since_start | .count > 0 and .p50_seconds > 0 and
			.p50_seconds <= .p99_seconds and .p99_seconds <= .max_seconds" <<<"$o")" true "latency of $s"
	done
	curl -sf --unix-socket "$T/d/a/c.sock" http://x/metrics >"$T/metrics"
	grep -qE '^cairn_read_seconds_count\{source="origin"\} [1-9]' "$T/metrics" || fail "no histogram in /metrics"
	grep -qE '^cairn_reader_stall_seconds_total [0-9.]*[1-9]' "$T/metrics" || fail "no stall in /metrics"
	cairn umount "$MNT"
}

that_once_is_plain_text_with_all_parts() {
	mounted
	local said
	for i in 1 2 3; do read_cold train/hot.bin; done
	said=$(cairn top --once)
	refute grep -q $'\033' <<<"$said"
	assert_says "$said" 'observer: .*requests'
	assert_says "$said" 'events lost: 0'
	assert_says "$said" '^local +[0-9]'
	assert_says "$said" "data +/dev/loop[0-9]+ on $MNT"
	assert_says "$said" 'train/hot\.bin'
	assert_says "$said" 'cat +sequential'
	cairn umount "$MNT"
}

that_without_an_observer_the_rest_is_there_and_one_line_says_why() {
	need_device
	need_filesystem erofs
	cairnd_drop
	cairnd_start a observe.enable=off
	cairn mount "file://$T/pushed" "$MNT" --name data
	cat "$MNT/train/hot.bin" >/dev/null
	assert_says "$(cairn top --once)" 'observer: off'
	assert_eq "$(cairn top --once | grep -c off)" 1 "lines that say so"
	assert_eq "$(top_json | jq '.sources.local.latency_since_start.count > 0')" true "latency"
	assert_says "$(cairn heat data)" 'no heat: off'
	cairn heat data --png "$T/off.png"
	assert_fails 'read_ahead_kb can be tuned; the observer is off' cairn tune data min_run=3
	cairn umount "$MNT"
}

# on_terminal END [NAME=VALUE...]: runs `cairn top` on a terminal of its own, resizes it, ends it with
# the key q or a signal, and prints what it wrote. Fails when the terminal is not as it was before.
on_terminal() {
	local how=$1
	shift
	env TERM=xterm "$@" timeout 60 python3 - "$how" "$CAIRN" "$T/d/a/c.sock" <<-'PY'
		import fcntl, os, pty, select, signal, struct, sys, termios, time
		how, cairn, sock = sys.argv[1:]
		main, side = pty.openpty()
		fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
		before = termios.tcgetattr(side)
		pid = os.fork()
		if pid == 0:
		    os.setsid()
		    fcntl.ioctl(side, termios.TIOCSCTTY, 0)
		    for fd in range(3):
		        os.dup2(side, fd)
		    os.execv(cairn, [cairn, "--socket", sock, "top", "--interval", "0.3"])
		out = b""
		def read(seconds):
		    global out
		    end = time.time() + seconds
		    while time.time() < end:
		        if select.select([main], [], [], 0.1)[0]:
		            out += os.read(main, 65536)
		read(1.0)
		assert b"\x1b[?1049h" in out, "it did not take the screen: %r" % out[:200]
		assert termios.tcgetattr(side)[3] & termios.ECHO == 0, "keys are echoed"
		fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
		mark = len(out)
		read(1.0)
		frame = out[mark:].split(b"\x1b[H")[-1]
		assert frame.count(b"\n") < 10, "more lines than the window has: %r" % frame
		if how == "q":
		    os.write(main, b"q")
		elif how == "^C":
		    os.write(main, b"\x03")
		else:
		    os.kill(pid, getattr(signal, how))
		read(1.0)
		done, status = os.waitpid(pid, os.WNOHANG)
		assert done == pid and os.waitstatus_to_exitcode(status) == 0, (done, status)
		assert out.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), "the screen was not given back: %r" % out[-100:]
		assert termios.tcgetattr(side) == before, "the terminal's settings are not as they were"
		sys.stdout.buffer.write(out)
	PY
}

that_a_key_or_a_signal_leaves_the_terminal_as_it_was() {
	mounted
	local how
	for how in q ^C SIGINT SIGTERM SIGHUP; do
		on_terminal "$how" >"$T/screen" || fail "ended by $how"
		grep -q 'events lost' "$T/screen" || fail "no frame before $how"
	done
	cairn umount "$MNT"
}

that_a_device_that_hangs_does_not_hold_top() {
	need_tool nbdfuse
	mounted
	cairn umount "$MNT"
	cairn mount "file://$T/pushed" "$MNT" --name data --way nbdfuse
	local p fuse='' began rc=0
	for p in $(pids_of_scratch); do
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = nbdfuse ]; then fuse=$p; fi
	done
	[ -n "$fuse" ] || fail "no nbdfuse under the device"
	drop_caches # so that the walk has to read folders
	kill -STOP "$fuse"
	began=$SECONDS
	LIMIT=20 cairn top --json --interval 0.2 >"$T/top" || rc=$?
	kill -CONT "$fuse"
	assert_eq "$rc" 0 "exit status"
	assert_le 2 $((SECONDS - began)) "seconds until a walk that hangs is given up"
	assert_le $((SECONDS - began)) 8 "seconds that top took"
	assert_eq "$(jq '.images[0].name' "$T/top")" '"data"' "the rest of the frame"
	wait_until 10 cairn umount "$MNT" || fail "the mount is held"
}

that_no_color_is_heeded() {
	mounted
	on_terminal q >"$T/screen"
	grep -q $'\033\[1m' "$T/screen" || fail "no colours on a terminal that has them"
	on_terminal q NO_COLOR=1 >"$T/screen"
	refute grep -qE $'\033\[[1-9][0-9;]*m' "$T/screen"
	cairn umount "$MNT"
}

that_top_goes_on_when_the_worker_is_started_anew() {
	mounted
	local o
	cat "$MNT/train/hot.bin" >/dev/null
	(
		sleep 0.5
		kill -KILL "$(worker_pid)"
	) &
	o=$(top_json --no-names --interval 3)
	assert_eq "$(jq '[.sources[].reads_per_second] | min >= 0' <<<"$o")" true "rates across a restart"
	wait $!
	cairn umount "$MNT" || umount "$MNT"
}

that_a_terminal_is_asked_for() {
	mounted
	assert_fails 'use --once or --json' cairn top
	assert_fails '0\.1 to 3600' cairn top --interval 0
	assert_fails 'takes no argument' cairn top data
	cairn umount "$MNT"
}

that_heat_shows_where_it_was_read() {
	mounted
	local o
	for i in 1 2 3; do read_cold train/hot.bin; done
	o=$(cairn heat data --json)
	assert_eq "$(jq '.observed and (.heat | max > 1) and (.heat | length) == (.present | length)' <<<"$o")" true "heat"
	assert_eq "$(jq '[.present, .heat] | transpose | map(select(.[1] > 2 and .[0] == 0)) | length' <<<"$o")" 0 \
		"cells that were read and are not stored"
	assert_says "$(cairn heat data)" 'a cell is 4\.0 MiB'
	assert_fails 'no export' cairn heat nosuch
	cairn umount "$MNT"
}

that_the_picture_is_a_png_of_1024() {
	mounted
	read_cold train/hot.bin
	cairn heat data --png "$T/heat.png"
	/usr/bin/python3 - "$T/heat.png" <<-'PY'
		import struct, sys, zlib
		d = open(sys.argv[1], "rb").read()
		assert d[:8] == b"\x89PNG\r\n\x1a\n"
		at, raw = 8, b""
		while at < len(d):
		    n, kind = struct.unpack(">I4s", d[at:at + 8])
		    body = d[at + 8:at + 8 + n]
		    assert zlib.crc32(kind + body) == struct.unpack(">I", d[at + 8 + n:at + 12 + n])[0]
		    if kind == b"IHDR":
		        width, height = struct.unpack(">II", body[:8])
		    if kind == b"IDAT":
		        raw += body
		    at += 12 + n
		assert width == 1024 and height > 200, (width, height)
		assert len(zlib.decompress(raw)) == height * (1 + 3 * width)
	PY
	assert_fails "$T/none/heat.png" cairn heat data --png "$T/none/heat.png"
	cairn umount "$MNT"
}

run_tests
