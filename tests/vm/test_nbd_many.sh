#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Many kernel NBD devices at once.
. "$(dirname "$0")/nbd.sh"

cairnd_start a

that_sixteen_devices_serve_at_once() {
	local n dev start
	start=$(date +%s%N)
	for n in $(seq 16); do
		cairn attach "$U/small-$n" --name "small-$n" >>"$T/devices"
	done
	note "16 devices attached in $((($(date +%s%N) - start) / 1000000)) ms"
	assert_eq "$(sort -u "$T/devices" | wc -l)" 16 "devices"
	for n in $(seq 16); do
		dev=$(sed -n "${n}p" "$T/devices")
		(cmp "$U_DIR/small-$n.raw" "$dev" && echo same >"$T/same.$n") &
	done
	# none of them may have waited for the kernel's time-out of a request, 30 s
	wait_until 25 eval '[ "$(cat "$T"/same.* | wc -l)" = 16 ]' || fail "not all are the same"
	assert_eq "$(grep -c 'connections of a device died' "$T/d/a/log" || true)" 0 "connections that died"
	for n in $(seq 16); do cairn detach "small-$n"; done
	assert_connected ''
}

that_a_hundred_devices_stand_at_once() {
	local n start one
	cairnd_drop a
	cairnd_start a
	start=$(date +%s%N)
	for n in $(seq 100); do
		cairn attach "$U/small-$((n % 16 + 1))" --name "n$n" --queues 1 >/dev/null
		[ "$n" != 1 ] || one=$((($(date +%s%N) - start) / 1000000))
	done
	note "attached, one queue each: 1 in $one ms, 100 in $((($(date +%s%N) - start) / 1000000)) ms"
	assert_eq "$(nbd_connected | wc -l)" 100 "connected devices"
	for n in $(nbd_connected); do
		timeout 20 dd if="/dev/$n" of=/dev/null bs=64k count=1 iflag=direct status=none || fail "$n does not answer"
	done
	start=$(date +%s%N)
	cairnd_stop
	note "100 detached at a stop in $((($(date +%s%N) - start) / 1000000)) ms"
	assert_connected ''
}

run_tests
