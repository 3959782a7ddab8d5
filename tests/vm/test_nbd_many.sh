#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Many kernel NBD devices at once.
. "$(dirname "$0")/nbd.sh"

cairnd_start a

# attach_many FIRST LAST [QUEUES]: n1, n2, .. of the small images; by one process, which takes longer to
# start here than a device takes to attach. Prints the milliseconds that it took in all.
attach_many() {
	local n start
	for n in $(seq "$1" "$2"); do
		[ "$n" = "$1" ] || echo next
		printf 'unix-socket = "%s"\nurl = "http://localhost/v1/exports"\nfail\nsilent\n' "$T/d/a/c.sock"
		printf 'json = "{\\"url\\":\\"%s\\",\\"name\\":\\"n%d\\",\\"attach\\":\\"nbd\\",\\"queues\\":%d}"\n' \
			"$U/small-$(((n - 1) % 16 + 1))" "$n" "${3:-1}"
	done >"$T/curl"
	start=$(date +%s%N)
	timeout 120 curl --config "$T/curl" >"$T/attached" || fail "attaching n$1 to n$2: $(cat "$T/attached")"
	echo $((($(date +%s%N) - start) / 1000000))
}
hogs_start() {
	local n
	for n in $(seq "$1"); do
		nice -n -15 timeout 60 sh -c 'while :; do :; done' &
		echo $! >>"$T/hogs"
	done
}
hogs_stop() {
	# shellcheck disable=SC2046
	kill $(cat "$T/hogs") 2>/dev/null || true
	rm -f "$T/hogs"
}

that_sixteen_devices_serve_at_once() {
	local n dev
	attach_many 1 1 2 >"$T/ms"
	note "1 device with two queues attached in $(cat "$T/ms") ms"
	# Threads of the kernel that come late: its rescuer then takes all connections of a device and
	# reads one of them.
	hogs_start 4
	attach_many 2 16 2 >"$T/ms"
	hogs_stop
	note "15 more beside 4 busy programs in $(cat "$T/ms") ms"
	note "$(grep -c 'does not read; made anew' "$T/d/a/log" || true) made anew, as the kernel did not read all of their connections"
	assert_eq "$(nbd_connected | wc -l)" 16 "connected devices"
	status '.images[] | "\(.name) \(.device)"' >"$T/devices"
	while read -r n dev; do
		(cmp "$U_DIR/small-${n#n}.raw" "$dev" && echo same >"$T/same.$n") &
	done <"$T/devices"
	wait_until 90 eval '[ "$(cat "$T"/same.* | wc -l)" = 16 ]' || fail "not all are the same"
	# a request that was lost ends in the kernel's time-out, which takes its connection
	assert_eq "$(grep -c 'connections of a device died' "$T/d/a/log" || true)" 0 "connections that died"
}

that_a_hundred_devices_stand_at_once() {
	local devices start
	attach_many 17 100 >"$T/ms"
	note "84 more with one queue in $(cat "$T/ms") ms"
	assert_eq "$(nbd_connected | wc -l)" 100 "connected devices"
	mapfile -t devices < <(nbd_connected | sed 's|^|/dev/|')
	assert_eq "$(timeout 60 head -qc 65536 "${devices[@]}" | wc -c)" $((100 * 65536)) "bytes read of all"
	start=$(date +%s%N)
	kill -TERM "$(supervisor_pid)"
	wait_until 90 pid_gone "$(supervisor_pid)" || fail "cairnd does not stop"
	note "100 detached at a stop in $((($(date +%s%N) - start) / 1000000)) ms"
	assert_connected ''
}

run_tests
