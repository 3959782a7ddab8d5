#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel NBD that can't be had, and devices that are somebody else's.
. "$(dirname "$0")/nbd.sh"

NBDFUSE=$(command -v nbdfuse)
NBD_KO=$(find "/lib/modules/$(uname -r)" -name 'nbd.ko*')

# module_hide FILE: as if it had never been installed; as_new brings it back
module_hide() {
	modprobe -r nbd
	mv "$1" "$1.hidden" && depmod
}

# What a test that failed before this one may have left.
as_new() {
	cairnd_drop a
	cairnd_drop b
	[ ! -e "$NBD_KO.hidden" ] || mv "$NBD_KO.hidden" "$NBD_KO"
	[ ! -e "$NBDFUSE.hidden" ] || mv "$NBDFUSE.hidden" "$NBDFUSE"
	depmod
}

modprobe -a fuse loop # no udev here that would make /dev/fuse and /dev/loop-control

foreign_start() { # somebody else's server on /dev/nbd0
	modprobe nbd
	"$BUILD/vm/bin/handover" serve /dev/nbd0 >"$T/foreign" 2>&1 </dev/null &
	echo $! >"$T/foreign.pid"
	wait_until 10 grep -q serving "$T/foreign" || fail "$(cat "$T/foreign")"
	wait_until 10 foreign_serves || fail "the other server does not serve"
}
foreign_serves() { timeout 10 dd if=/dev/nbd0 of="$T/foreign.data" bs=1M count=4 iflag=direct status=none; }
foreign_stop() {
	pkill -KILL -P "$(cat "$T/foreign.pid")" || true
	kill -KILL "$(cat "$T/foreign.pid")" 2>/dev/null || true
	wait_until 10 eval '[ -z "$(nbd_connected)" ]' || fail "the other server's device stays"
}

that_without_the_module_a_device_is_made_by_nbdfuse() {
	local dev
	as_new
	module_hide "$NBD_KO"
	cairnd_start a
	assert_fails 'nbd.*module|module.*nbd|modprobe' cairn attach "$U/fio" --name fio --way nbd
	dev=$(cairn attach "$U/fio" --name fio)
	assert_says "$dev" '^/dev/loop'
	assert_eq "$(image fio .way)" nbdfuse "way in status"
	dd if="$dev" of=/dev/null bs=1M count=2 status=none
}

that_without_any_way_the_error_names_what_is_missing() {
	as_new
	module_hide "$NBD_KO"
	mv "$NBDFUSE" "$NBDFUSE.hidden"
	cairnd_start a
	assert_fails 'nbdfuse' cairn attach "$U/fio" --name fio
	assert_says "$SAID" 'module|modprobe'
}

that_the_module_comes_back_without_a_restart_of_the_daemon() {
	as_new
	module_hide "$NBD_KO"
	cairnd_start a
	assert_fails 'module|modprobe' cairn attach "$U/fio" --name fio --way nbd
	mv "$NBD_KO.hidden" "$NBD_KO" && depmod
	assert_says "$(cairn attach "$U/fio" --name fio --way nbd)" '^/dev/nbd'
	cairnd_drop a
	assert_connected ''
}

that_netlink_refused_is_said() {
	as_new
	modprobe nbd
	cairnd_config a
	cairnd_launch a setpriv --bounding-set -sys_admin --inh-caps -sys_admin
	assert_fails 'CAP_SYS_ADMIN|permission|privilege|not permitted' cairn attach "$U/fio" --name fio --way nbd
	assert_connected ''
	cairn export "$U/fio" --name fio >/dev/null
}

that_a_foreign_device_is_never_touched() {
	local dev
	as_new
	foreign_start
	cp "$T/foreign.data" "$T/foreign.before"
	cairnd_start a
	dev=$(cairn attach "$U/fio" --name fio)
	[ "$dev" != /dev/nbd0 ] || fail "the other server's device was taken"
	assert_fails '/dev/nbd0' cairn attach "$U/small-1" --name one --device /dev/nbd0
	assert_says "$SAID" 'in use|busy'
	assert_fails 'nbd0' cairn detach /dev/nbd0 --force
	cairnd_kill a
	cairnd_launch a
	assert_connected "nbd0 ${dev#/dev/}" # its own is kept
	assert_eq "$(cairn attach "$U/fio" --name fio)" "$dev" "the device of the image"
	cairnd_stop a
	assert_connected nbd0
	drop_caches
	foreign_serves
	cmp "$T/foreign.before" "$T/foreign.data"
	foreign_stop
}

that_another_daemons_device_is_never_touched() {
	local dev
	as_new
	cairnd_start a
	cairnd_start b
	dev=$(D=b cairn attach "$U/fio" --name fio)
	assert_fails "$dev" cairn attach "$U/small-1" --name one --device "$dev"
	assert_says "$SAID" 'in use|busy'
	cairnd_kill a
	cairnd_launch a
	assert_connected "${dev#/dev/}"
	cairnd_stop a
	dd if="$dev" of=/dev/null bs=1M count=2 iflag=direct status=none
	cairnd_drop b
	assert_connected ''
}

that_a_device_asked_for_by_name_is_that_one() {
	as_new
	cairnd_start a
	assert_eq "$(cairn attach "$U/fio" --name fio --device /dev/nbd5)" /dev/nbd5 "device"
	assert_connected nbd5
	assert_fails '/dev/nbd5' cairn attach "$U/small-1" --name one --device /dev/nbd5
	assert_fails '/dev/sda|nbd' cairn attach "$U/small-1" --name one --device /dev/sda
	cairn detach fio
	cairnd_drop a
	assert_connected ''
}

run_tests
