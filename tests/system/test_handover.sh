#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Workers that are killed or replaced under devices and exports: what their readers see.
. "$(dirname "$0")/lib.sh"

# worker_other_than PID: another worker serves by now
worker_other_than() {
	local w
	w=$(worker_pid) || return 1
	[ "$w" != "$1" ] && [ -n "$(cairn status --json 2>/dev/null | jq -r .version)" ]
}

# Kills the worker, and waits for the next one to serve.
worker_replace_by_kill() {
	local w
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 30 worker_other_than "$w" || fail "no other worker serves"
}

that_a_worker_begins_without_its_origin() {
	local w uri sealed
	sealed=$(uri "$U/img" --name sealed)
	"$AZ" put images/plain.img "$T/img"
	uri=$(uri "$U/plain.img" --name plain)
	assert_image_equals "$sealed" "$T/img"
	assert_image_equals "$uri" "$T/img"
	kill -STOP "$(azurite_pid)"
	worker_replace_by_kill || { kill -CONT "$(azurite_pid)"; return 1; }
	(
		assert_image_equals "$sealed" "$T/img"
		assert_eq "$(image plain .verified)" false "unsealed as before"
		assert_eq "$(image plain .bytes_present)" "$LEN_STORED" "bytes of the unsealed image in the store"
	) || { kill -CONT "$(azurite_pid)"; return 1; }
	kill -CONT "$(azurite_pid)"
	cairn detach sealed
	cairn detach plain
}

that_an_export_goes_on_with_its_own_image_when_another_was_published() {
	local uri
	cairn image push "$T/img" "$U/moving"
	uri=$(uri "$U/moving" --name old)
	"$AZ" delete images/moving.cairn.json
	cairn image push "$T/other" "$U/moving"
	cairn export "$U/moving" --name new --refresh >/dev/null
	assert_image_equals "$(uri "$U/moving" --name new)" "$T/other"
	worker_replace_by_kill
	assert_image_equals "$uri" "$T/img"
	assert_image_equals "$(uri "$U/moving" --name new)" "$T/other"
	cairn detach old
	cairn detach new
}

that_an_export_that_only_its_origin_has_comes_when_the_origin_does() {
	local uri pid rc=0
	uri=$(uri "$U/img" --name img)
	uri "$U/other" --name other >/dev/null
	pid=$(azurite_pid)
	kill -STOP "$pid"
	rm "$T"/d/a/store/urls/*
	(
		worker_replace_by_kill
		assert_eq "$(image img .name)" "" "an export that nobody could open"
		assert_fails 'being opened again' cairn export "file://$T/img" --name img
		cairn detach other # given up while it waits
	) || rc=$?
	kill -CONT "$pid"
	[ $rc = 0 ] || return $rc
	wait_until 30 eval '[ "$(image img .name)" = img ]' || fail "the export does not come back"
	assert_image_equals "$uri" "$T/img"
	assert_eq "$(image other .name)" "" "the export that was given up"
	cairn detach img
}

# --- killed and replaced under load ---

READERS=$BUILD/system/compare_reads

# Two mounted file systems and the bare device of a third image, read past the page cache.
beds_up() {
	need_device
	need_filesystem erofs
	mkdir -p "$T/erofs" "$T/ext4"
	cairn mount "$U/erofs" "$T/erofs" --name erofs
	cairn mount "$U/ext4" "$T/ext4" --name ext4
	DEV=$(cairn attach "$U/img" --name img)
}
beds_down() {
	cairn umount "$T/erofs"
	cairn umount "$T/ext4"
	cairn detach img
	assert_eq "$(status '.images | length')" 0 "exports left"
}
readers_start() {
	rm -f "$T/stop"
	"$READERS" "$T/stop" 4 "$T/erofs/big" "$T/tree/big" "$T/ext4/big" "$T/tree/big" "$DEV" "$T/img" \
		"$T/erofs/small" "$T/tree/small" >"$T/readers" 2>&1 &
	echo $! >"$T/readers.pid"
}
# A read that hangs can't be killed, so the readers' own end is waited for.
readers_stop() {
	touch "$T/stop"
	wait_until "${1:-30}" pid_gone "$(cat "$T/readers.pid")" || fail "a read hangs"
	note "readers: $(cat "$T/readers")"
	grep -q ' errors=0 wrong=0 ' "$T/readers" || fail "$(cat "$T/readers")"
	assert_le 50 "$(sed -n 's/^reads=\([0-9]*\) .*/\1/p' "$T/readers")" "reads that were compared"
}

KILLS=100
MANY=1000
if [ "${CAIRN_LOOP-}" = epoll ]; then KILLS=30 MANY=100; fi # the other loop has had them all

that_readers_of_mounts_and_devices_see_nothing_of_killed_workers() {
	local i w killed=0 restarts
	beds_up
	readers_start
	for i in $(seq 1 400); do
		[ $killed -lt $KILLS ] || break
		sleep "0.0$((RANDOM % 10))$((RANDOM % 10))"
		w=$(worker_pid) || continue
		if kill -KILL "$w" 2>/dev/null; then killed=$((killed + 1)); fi
	done
	wait_until 30 cairn status --json || fail "no worker serves"
	readers_stop
	note "kills: $killed"
	restarts=$(status .worker_restarts)
	assert_le $KILLS "$restarts" "restarts of the worker"
	tree_hashes "$T/tree" >"$T/want"
	drop_caches
	tree_hashes "$T/erofs" | cmp - "$T/want"
	tree_hashes "$T/ext4" | cmp - "$T/want"
	beds_down
}

that_ten_upgrades_under_load_are_seen_by_no_reader() {
	local i w said gaps= restarts lines
	beds_up
	lines=$(wc -l <"$T/d/a/log")
	restarts=$(status .worker_restarts)
	readers_start
	for i in $(seq 1 10); do
		w=$(worker_pid)
		said=$(cairn upgrade)
		assert_says "$said" "^worker $w \\([0-9.]+\\) -> $(worker_pid) \\([0-9.]+\\), gap [0-9]+ ms$"
		gaps+=" $(sed 's/.*gap \([0-9]*\) ms/\1/' <<<"$said")"
	done
	readers_stop
	note "gaps of ten upgrades, ms:$gaps"
	assert_eq "$(status .worker_before.planned)" true "the last worker's end was planned"
	assert_eq "$(status .worker_restarts)" "$restarts" "deaths of workers"
	refute grep -q 'did not end in order' "$T/d/a/log"
	assert_eq "$(tail -n "+$lines" "$T/d/a/log" | grep -c 'stop=unclean' || true)" 0 "unclean stops"
	beds_down
}

that_an_upgrade_reads_the_settings_and_the_program_anew() {
	local size
	size=$(status .store.size_bytes)
	cairnd_config a store.size=3GiB
	cairn upgrade
	assert_eq "$(status .store.size_bytes)" $((3 << 30)) "size of the store"
	worker_replace_by_kill # settings that were taken stay taken
	assert_eq "$(status .store.size_bytes)" $((3 << 30)) "size of the store after a death"
	cairnd_config a
	cairn upgrade
	assert_eq "$(status .store.size_bytes)" "$size" "size of the store"
}

that_an_upgrade_that_can_not_be_is_refused_by_name_and_changes_nothing() {
	local w
	w=$(worker_pid)
	uri "$U/img" --name img >/dev/null
	cairnd_config a fill.nonsense=1
	assert_fails 'cairnd.ini.*nonsense' cairn upgrade
	cairnd_config a nbd.socket="$T/d/a/other.sock"
	assert_fails '\[nbd\] socket = .*other.sock.*restart cairnd' cairn upgrade
	cairnd_config a azure.key_file="$T/nosuch"
	assert_fails "ended with status 1 before it served" cairn upgrade
	grep -q "can't read the secret in $T/nosuch" "$T/d/a/log" || fail "the log does not say why"
	assert_eq "$(worker_pid)" "$w" "the worker"
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_config a store.path=/proc/nosuch # seen when the old worker is gone
	assert_fails "ended before it served.*settings from before" cairn upgrade
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_config a
	cairn upgrade
	cairn detach img
}

nbdfuse_pid() { # of the device that is served in the folder of export $1
	local p
	for p in $(grep -laF -- "$T/d/a/run/attach/$1/" /proc/[0-9]*/cmdline 2>/dev/null); do
		p=${p#/proc/}
		p=${p%/cmdline}
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = nbdfuse ]; then echo "$p"; return 0; fi
	done
	return 1
}
reads_again() { dd if="$1" iflag=direct bs=64k count=1 status=none | cmp -s -n 65536 - "$T/img"; }

that_a_device_outlives_its_helper_and_its_worker() {
	local dev pid w
	need_device
	dev=$(cairn attach "$U/img" --name img --way nbdfuse)
	for w in alive dead; do
		sleep 1.1 # a helper that ends sooner is not brought back
		pid=$(nbdfuse_pid img)
		if [ $w = dead ]; then kill -KILL "$pid" "$(worker_pid)"; else kill -KILL "$pid"; fi
		wait_until 10 pid_gone "$pid" || fail "nbdfuse survived SIGKILL"
		wait_until 20 reads_again "$dev" || fail "the device does not read again (worker $w)"
		[ "$(nbdfuse_pid img)" != "$pid" ] || fail "the same nbdfuse"
	done
	cairn detach img
	assert_eq "$(loops_of_scratch)" '' "loop devices left"
}

# export_many N: N more exports, over one connection to the control socket
export_many() {
	local i
	for i in $(seq "$1"); do
		[ "$i" = 1 ] || echo next
		printf 'unix-socket = "%s"\nurl = "http://x/v1/exports"\noutput = /dev/null\nfail\n' "$T/d/a/c.sock"
		printf 'data = "{\\"url\\":\\"%s\\",\\"name\\":\\"many-%d\\"}"\n' "$U/img" "$i"
	done >"$T/many"
	timeout 60 curl -s -K "$T/many"
}

that_a_worker_of_many_exports_serves_its_device_soon_without_an_origin() {
	local dev begun ms rc=0
	need_device
	dev=$(cairn attach "$U/img" --name img)
	dd if="$dev" iflag=direct bs=64k count=1 status=none | cmp -n 65536 - "$T/img"
	export_many $MANY
	kill -STOP "$(azurite_pid)"
	kill -KILL "$(worker_pid)"
	begun=$(date +%s%N)
	timeout 60 dd if="$dev" iflag=direct bs=64k count=1 status=none >"$T/first" || rc=$?
	ms=$((($(date +%s%N) - begun) / 1000000))
	kill -CONT "$(azurite_pid)"
	[ $rc = 0 ] || fail "the read failed"
	cmp -n 65536 "$T/first" "$T/img"
	assert_eq "$(status '.images | length')" $((MANY + 1)) "exports that were opened again"
	note "from the worker's death to the first byte, with $MANY exports more and a silent origin: $ms ms; gap $(status .worker_before.gap_ms) ms"
	assert_le "$ms" 20000 "milliseconds (the wish is 1000)"
	cairnd_drop
	cairnd_start a
}

LEN=$((9 * 1024 * 1024 + 777))
LEN_STORED=$(((LEN + 65535) / 65536 * 65536))
random_file "$T/img" "$LEN"
random_file "$T/other" "$LEN" other
azurite_start
cairn image push "$T/img" "$U/img"
cairn image push "$T/other" "$U/other"
random_file "$T/tree/big" $((24 * 1024 * 1024 + 4096)) big
random_file "$T/tree/small" 8192 small
for fs in erofs ext4; do
	cairn image build "$T/tree" "$T/$fs.img" --fs $fs
	cairn image push "$T/$fs.img" "$U/$fs"
done
cairnd_start a
run_tests
