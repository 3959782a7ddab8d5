#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# cairn tune: what takes effect at once, what is kept, and what is refused.
. "$(dirname "$0")/lib.sh"

prepare() {
	mkdir -p "$T/tree"
	random_file "$T/tree/one" $((16 << 20)) one
	random_file "$T/tree/two" $((16 << 20)) two
	cairn image build "$T/tree" "$T/img" --quiet
	cairn image push "$T/img" "file://$T/pushed" --quiet
}
[ -e "$T/img" ] || prepare >/dev/null

mounted() {
	need_device
	need_filesystem erofs
	cairnd_drop
	cairnd_start a
	[ "$(cairn tune --json | jq .hook_bits)" != 0 ] || skip "$(cairn tune --json | jq -r .hooks)"
	cairn mount "file://$T/pushed" "$MNT" --name data
}

device() { image data .device; }
read_cold() {
	dd if="$MNT/$1" iflag=nocache count=0 status=none
	cat "$MNT/$1" >/dev/null
}
heat() { cairn heat data --json | jq '.heat | add'; }
key() { cairn tune "${2:-data}" --json | jq -r ".subjects[0].keys.$1 | \"\(.value) \(.from)\""; }
read_ahead() { cat "/sys/block/$(basename "$(device)")/queue/read_ahead_kb"; }
cgroup2() { awk '/ - cgroup2 / { print $5; exit }' /proc/self/mountinfo; }
# cgroup_make NAME: a cgroup of ours, removed at the end
cgroup_make() {
	local root
	root=$(cgroup2)
	[ -n "$root" ] || skip "cgroup2 is not mounted"
	mkdir "$root/$1" || skip "no cgroup can be made under $root"
	echo "$root/$1" >>"$T/cgroups"
	C=$root/$1
}

that_half_life_takes_effect_without_reattaching() {
	mounted
	local before
	for i in 1 2 3 4; do read_cold one; done
	before=$(heat)
	sleep 2 # 1/15 of the default half-life
	[ "$(heat)" -gt $((before / 3)) ] || fail "heat fell from $before to $(heat) in 2 s by itself"
	cairn tune data half_life=1 >/dev/null
	sleep 4
	assert_le "$(heat)" $((before / 4)) "heat after four half-lives"
	assert_eq "$(key half_life)" "1 set" "in force"
	cairn umount "$MNT"
}

that_enable_takes_effect_without_reattaching() {
	mounted
	local before
	cairn tune "$(device)" half_life=3600 enable=false >/dev/null
	before=$(heat)
	read_cold one
	assert_eq "$(heat)" "$before" "heat while disabled"
	assert_eq "$(cairn top --json --no-names --interval 0.2 | jq '[.images[0].streams[] | select(.comm == "cat")] | length')" 0 \
		"streams while disabled"
	cairn tune data enable=true >/dev/null
	read_cold one
	[ "$(heat)" -gt "$before" ] || fail "no heat when enabled again"
	cairn umount "$MNT"
}

that_min_run_takes_effect_on_the_next_window() {
	mounted
	cairn tune data min_run=1024 >/dev/null
	read_cold one
	assert_eq "$(cairn top --json --no-names --interval 0.3 | jq -r '.images[0].streams[] | select(.comm == "cat") | .verdict' | sort -u)" new \
		"verdict before a run of 1024"
	cairn tune data min_run=2 >/dev/null
	read_cold two
	assert_says "$(cairn top --json --no-names --interval 0.3 | jq -r '.images[0].streams[] | select(.comm == "cat") | .verdict')" sequential
	cairn umount "$MNT"
}

that_read_ahead_kb_changes_the_device() {
	mounted
	local before
	before=$(read_ahead)
	assert_eq "$(key read_ahead_kb)" "$before default" "before"
	cairn tune data read_ahead_kb=64 >/dev/null
	assert_eq "$(read_ahead)" 64 "read_ahead_kb in sysfs"
	assert_eq "$(key read_ahead_kb)" "64 set" "in force"
	cairn tune data read_ahead_kb=default >/dev/null
	assert_eq "$(read_ahead)" "$before" "read_ahead_kb after the reset"
	cairn umount "$MNT"
}

that_what_is_saved_survives_a_restart_of_the_daemon() {
	mounted
	cairn tune data half_life=7 read_ahead_kb=96 --save >/dev/null
	cairn tune data min_run=9 >/dev/null
	assert_eq "$(key half_life)" "7 saved" "before the restart"
	cairn umount "$MNT"
	cairnd_stop
	cairnd_launch a
	cairn mount "file://$T/pushed" "$MNT" --name other # the image's, whatever its name
	assert_eq "$(key half_life other)" "7 saved" "after the restart"
	assert_eq "$(key min_run other)" "4 default" "what was not saved"
	assert_eq "$(key read_ahead_kb other)" "96 saved" "read_ahead_kb after the restart"
	cairn umount "$MNT"
}

that_what_is_set_survives_a_restart_of_the_worker() {
	mounted
	local worker
	cairn tune data min_run=9 >/dev/null
	worker=$(worker_pid)
	umount "$MNT"
	kill -KILL "$worker"
	wait_until 20 pid_gone "$worker"
	wait_until 20 eval '[ "$(key min_run)" = "9 set" ]' || fail "after the worker's death: $(key min_run)"
	cairn detach data
}

that_bad_keys_and_values_are_refused_with_the_allowed_named() {
	mounted
	assert_fails 'no key halflife; there are enable, half_life, min_run, ring_sampling, read_ahead_kb' cairn tune data halflife=3
	assert_fails 'half_life=0: must be 1 to 86400 seconds' cairn tune data half_life=0
	assert_fails 'min_run=1025: must be 1 to 1024' cairn tune data min_run=1025
	assert_fails 'ring_sampling=-1: must be 1 .* to 65536' cairn tune data ring_sampling=-1
	assert_fails 'enable=maybe: must be true or false' cairn tune data enable=maybe
	assert_fails 'read_ahead_kb=4.5: must be 0 to 1048576 KiB' cairn tune data read_ahead_kb=4.5
	assert_fails 'no KEY=VALUE' cairn tune data enable
	assert_fails 'which image' cairn tune min_run=3
	assert_fails '--save keeps' cairn tune data --save
	assert_fails 'nosuch' cairn tune nosuch min_run=3
	# all or nothing
	assert_fails 'min_run=0' cairn tune data half_life=5 min_run=0
	assert_eq "$(key half_life)" "30 default" "after what was refused"
	cairn umount "$MNT"
}

that_a_cgroup_is_tuned_by_its_path() {
	mounted
	cgroup_make "cairn-test-$$"
	local before
	cairn tune data half_life=3600 >/dev/null
	cairn tune "$C" enable=false --save >/dev/null
	assert_eq "$(key enable "$C")" "false saved" "in force"
	before=$(heat)
	(echo "$BASHPID" >"$C/cgroup.procs" && read_cold one)
	assert_eq "$(heat)" "$before" "heat of a cgroup that is disabled"
	read_cold one
	[ "$(heat)" -gt "$before" ] || fail "no heat of another cgroup's reads"
	assert_fails 'half_life is a device.s' cairn tune "$C" half_life=3
	assert_fails 'read_ahead_kb is a device.s' cairn tune "$C" read_ahead_kb=3
	assert_fails "there is no cgroup $C/none" cairn tune "$C/none" min_run=3
	assert_fails 'is no cgroup' cairn tune "$T" min_run=3
	cairn umount "$MNT"
	cairnd_stop
	cairnd_launch a
	assert_eq "$(key enable "$C")" "false saved" "after a restart"
	wait_until 5 rmdir "$C"
	assert_says "$(cairn tune)" "there is no cgroup $C"
}

that_a_cgroup_of_version_1_is_refused() {
	local v1
	v1=$(awk '/ - cgroup / { print $5; exit }' /proc/self/mountinfo)
	[ -n "$v1" ] || skip "no cgroup of version 1 is mounted"
	mounted
	assert_fails 'cgroup of version 1' cairn tune "$v1" min_run=3
	cairn umount "$MNT"
}

that_a_damaged_policy_file_is_said_and_kept_aside() {
	mounted
	cairn tune data half_life=7 --save >/dev/null
	cairn umount "$MNT"
	cairnd_stop
	printf '{"format":"cairn-pol' >"$T/d/a/store/policy.json"
	cairnd_launch a
	grep -q 'saved policies lost.*policy.json.damaged' "$T/d/a/log" || fail "not said in the log"
	assert_eq "$(cat "$T/d/a/store/policy.json.damaged")" '{"format":"cairn-pol' "what was kept aside"
	cairn mount "file://$T/pushed" "$MNT" --name data
	assert_eq "$(key half_life)" "30 default" "in force"
	cairn tune data half_life=8 --save >/dev/null
	cairn umount "$MNT"
	cairnd_stop
	cairnd_launch a
	cairn mount "file://$T/pushed" "$MNT" --name data
	assert_eq "$(key half_life)" "8 saved" "saved anew"
	cairn umount "$MNT"
}

run_tests
