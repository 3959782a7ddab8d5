#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Memory is bounded by configuration, whatever the image's size: 20 GiB are read through the worker at
# default settings within 200 MiB, and inside a cgroup of 300 MiB.
# any event loop
. "$(dirname "$0")/lib.sh"

GIB=$((1 << 30))

anon_and_shmem_kib() { awk '/^Rss(Anon|Shmem):/ { n += $2 } END { print n + 0 }' "/proc/$1/status" 2>/dev/null || echo 0; }

# Reads the 20 GiB with 4 connections; the most that the worker had goes to $MOST (KiB).
read_all() {
	local w copy now
	MOST=0
	w=$(worker_pid)
	timeout -k 5 600 nbdcopy --connections=4 "$(uri "file://$T/o/repeated" --name big)" null: &
	copy=$!
	while pid_alive $copy; do
		now=$(anon_and_shmem_kib "$w")
		[ "$now" -le $MOST ] || MOST=$now
		sleep 0.2
	done
	wait $copy || fail "nbdcopy failed: $(image big .last_error)"
	assert_eq "$(worker_pid)" "$w" "the worker's pid after the read"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	assert_le $((20 * GIB)) "$(status '.counters.served_bytes | .local + .peer + .origin')" "bytes served"
	assert_le "$(status .store.used_bytes)" $((2 * GIB)) "store use"
}

# A cgroup of 300 MiB: its folder. v2 where the memory controller is there, else v1. 1: none is to be had.
make_cgroup() {
	local g
	[ "$(id -u)" = 0 ] || return 1
	if grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
		g=/sys/fs/cgroup/cairn-test.$$
		mkdir "$g" 2>/dev/null || return 1
		[ -f "$g/memory.max" ] || echo +memory >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
		if ! echo 300M >"$g/memory.max" 2>/dev/null; then rmdir "$g"; return 1; fi
		echo 0 >"$g/memory.swap.max" 2>/dev/null || true
	elif [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
		g=/sys/fs/cgroup/memory/cairn-test.$$
		mkdir "$g" 2>/dev/null || return 1
		echo 300M >"$g/memory.limit_in_bytes"
	else
		return 1
	fi
	CGROUP=$g
	echo "$g" >>"$T/cgroups" # removed by clean_up
}

oom_kills() { cat "$CGROUP/memory.events" "$CGROUP/memory.oom_control" 2>/dev/null | awk '$1 == "oom_kill" { n += $2 } END { print n + 0 }'; }

# One read for both bounds: the pages of a cgroup without swap that are not of files can't be taken from it.
that_20_gib_are_read_within_200_mib_and_a_cgroup_of_300() {
	local inside=()
	if make_cgroup; then
		# shellcheck disable=SC2016 # for the inner shell
		inside=(sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$CGROUP")
	else
		note "no memory cgroup is to be had here: RssAnon and RssShmem alone are judged"
	fi
	cairnd_config a store.size=2GiB fill.deadline=
	cairnd_launch a "${inside[@]}"
	[ ${#inside[@]} = 0 ] || grep -q cairn-test "/proc/$(worker_pid)/cgroup" || fail "the worker is not in the cgroup"
	read_all
	cairnd_stop
	note "RssAnon + RssShmem: at most $((MOST / 1024)) MiB"
	assert_le $((MOST / 1024)) 200 "MiB of RssAnon + RssShmem"
	assert_le 1 $MOST "KiB seen, at least"
	[ ${#inside[@]} = 0 ] || assert_eq "$(oom_kills)" 0 "processes killed for want of memory"
}

that_status_shows_what_is_in_the_store_of_a_large_image() {
	cairnd_launch a
	uri "file://$T/o/repeated" --name big >/dev/null
	assert_eq "$(image big .length)" $((20 * GIB)) "length"
	assert_eq "$(image big .digest)" "$(cat "$T/digest")" "digest"
	assert_eq "$(image big .verified)" true "verified"
	assert_le "$(image big .bytes_present)" $((2 * GIB)) "bytes present"
	cairnd_stop
}

mkdir -p "$T/o"
random_file "$T/o/blob" $GIB
"$ROOT/tests/system/repeat_image.py" "$T/o/blob" 20 >"$T/digest"
run_tests
