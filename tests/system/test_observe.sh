#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# The observer, over a mount of this kernel's own: verdicts, heat, hits, loss, nonsense, no rights.
# tests/vm/test_observe.sh runs it in a guest, and says which hook and device it must find there.
. "$(dirname "$0")/lib.sh"

TOOL=$BUILD/system/observe_tool

hooks() { sed -n 's/.*msg="observer" hooks="\([^"]*\)".*/\1/p' "$T/d/${1:-$D}/log" | tail -n 1; }
need_hook() {
	if ! hooks | sed 's/; off:.*//' | grep -q "$1"; then skip "this kernel gives no $1 ($(hooks))"; fi
}
observed() { "$TOOL" stats "$(supervisor_pid)" | awk -v n="$1" '$1 == n { print $2 }'; }
mounted() { mountpoint -q "$MNT" || cairn mount "file://$T/fs" "$MNT" --name fs; }
forget_pages() { # of a file; whatever other tests have cached stays
	dd if="$1" iflag=nocache count=0 status=none
}
# verdict_of FILE PATTERN: what the stream of that reader is taken for
verdict_of() {
	forget_pages "$1"
	"$TOOL" read "$2" "$1"
	"$TOOL" streams "$(supervisor_pid)" "$(stat -c %i "$1")"
}
# ids of what the supervisor holds of BPF: "prog 12", "map 13", ..
bpf_ids() { sed -n 's/^\(prog\|map\)_id:[[:space:]]*/\1 /p' "/proc/$1/fdinfo/"* 2>/dev/null | sort -u; }
bpf_is_gone() { # IDS
	local kind id
	while read -r kind id; do
		if bpftool "$kind" show id "$id" >/dev/null 2>&1; then return 1; fi
	done <<<"$1"
}

that_one_line_at_start_names_the_hooks() {
	assert_eq "$(grep -c 'msg="observer"' "$T/d/a/log")" 1 "lines about the observer"
	assert_says "$(hooks)" "^requests, windows \\((${OBSERVE_WINDOWS:-tracepoint|fentry|pages added})\\)"
}

that_the_device_is_of_the_kind_that_is_to_be_observed() {
	mounted
	assert_says "$(findmnt -no SOURCE "$MNT")" "^${OBSERVE_DEVICE:-/dev/}"
}

that_a_sequential_reader_is_seen_as_such() {
	mounted
	assert_says "$(verdict_of "$MNT/one" sequential)" '^sequential '
}

that_a_stride_is_seen_with_its_length() {
	mounted
	assert_says "$(verdict_of "$MNT/two" stride)" '^stride [0-9]+ 262144 '
}

that_a_backward_reader_is_a_stride_of_minus_one_page() {
	mounted
	assert_says "$(verdict_of "$MNT/small" backwards)" '^stride [0-9]+ -4096 '
}

that_a_random_reader_is_seen_as_such() {
	mounted
	assert_says "$(verdict_of "$MNT/three" random)" '^random 1 0 '
}

that_direct_reads_are_a_stream_of_the_device() {
	mounted
	"$TOOL" read direct "$MNT/three"
	assert_says "$("$TOOL" streams "$(supervisor_pid)" 0)" '^sequential [0-9]{3,} '
}

that_requests_and_windows_are_counted() {
	mounted
	local requests bytes windows
	requests=$(observed requests) bytes=$(observed window_bytes) windows=$(observed windows)
	forget_pages "$MNT/one"
	"$TOOL" read sequential "$MNT/one"
	assert_le $((requests + 1)) "$(observed requests)" "requests"
	assert_le $((windows + 4)) "$(observed windows)" "windows"
	bytes=$(($(observed window_bytes) - bytes))
	assert_le "$(stat -c %s "$MNT/one")" $((bytes + 65536)) "bytes of the file, of which those of windows"
	assert_le "$bytes" $(($(stat -c %s "$MNT/one") * 5 / 4)) "bytes of windows"
}

that_what_others_read_is_not_counted() {
	mounted
	local before
	before=$(observed requests),$(observed windows)
	random_file "$T/other" 8000000
	sync "$T/other"
	forget_pages "$T/other"
	"$TOOL" read sequential "$T/other"
	assert_eq "$(observed requests),$(observed windows)" "$before" "requests and windows"
}

that_the_extents_of_a_hot_file_are_the_hottest() {
	mounted
	local first last i hottest
	need_tool filefrag
	# the places of 4 MiB that it is in, from its blocks of 4 KiB
	read -r first last < <(filefrag -b4096 -v "$MNT/hot" | tr -d : | tr . ' ' |
		awk '$1 ~ /^[0-9]+$/ { if (!n++ || $4 < a) a = $4; if ($5 > b) b = $5 }
			END { print int(a / 1024), int(b / 1024) }')
	assert_le "$((last - first))" 5 "places from the first of the hot file to its last"
	for ((i = 0; i < 20; i++)); do "$TOOL" read direct "$MNT/hot"; done
	hottest=$("$TOOL" heat "$(supervisor_pid)" "$first" "$last")
	# the first and the last it may share with others
	assert_eq "$(head -n 3 <<<"$hottest" | grep -c INSIDE)" 3 "of the hottest three, those of the hot file ($hottest)"
}

# share PATTERN: misses in percent of what is asked; until enough was seen in 50 ms of each second
share() {
	local asked=0 missed asked_before missed_before i
	asked_before=$(observed asked_pages) missed_before=$(observed missed_pages)
	for ((i = 0; i < 10 && asked < 1000; i++)); do
		"$TOOL" read "$1" "$MNT/two" 4
		asked=$(($(observed asked_pages) - asked_before))
	done
	missed=$(($(observed missed_pages) - missed_before))
	assert_le 1 "$asked" "pages asked for"
	echo "$1: $missed of $asked" >&2
	echo $((missed * 100 / asked))
}

that_a_second_read_hits_the_page_cache_and_a_first_does_not() {
	need_hook 'page-cache hits (reads'
	mounted
	assert_le 50 "$(share cold)" "percent missed of cold reads"
	"$TOOL" read sequential "$MNT/two"
	assert_le "$(share warm)" 5 "percent missed of warm reads"
}

that_a_full_ring_is_counted_as_lost_and_no_more() {
	mounted
	local w lost
	w=$(worker_pid)
	"$TOOL" read sequential "$MNT/two"
	lost=$(observed lost)
	kill -STOP "$w"
	timeout 60 "$TOOL" willneed "$MNT/two" 20000 || { kill -CONT "$w"; fail "the reader did not end"; }
	kill -CONT "$w"
	assert_le $((lost + 1000)) "$(observed lost)" "records lost"
	lost=$(observed lost)
	wait_until 5 ring_is_empty || fail "the worker does not read on"
	"$TOOL" willneed "$MNT/two" 100
	wait_until 5 ring_is_empty || fail "the worker does not read on"
	assert_eq "$(observed lost)" "$lost" "records lost"
}
ring_is_empty() { "$TOOL" ring "$(supervisor_pid)" | grep -q ' 0$'; }

that_the_next_worker_reads_on() {
	mounted
	local w produced
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 20 pid_gone "$w"
	wait_until 20 cairn status --json
	umount -l "$MNT" # ext4 does not outlive it
	cairn detach fs || true
	mounted
	produced=$("$TOOL" ring "$(supervisor_pid)" | cut -d ' ' -f 1)
	"$TOOL" read sequential "$MNT/one"
	wait_until 5 ring_is_empty || fail "the worker does not read the ring"
	assert_le $((produced + 1)) "$("$TOOL" ring "$(supervisor_pid)" | cut -d ' ' -f 1)" "bytes produced"
}

that_nonsense_in_the_policy_map_neither_crashes_nor_hides() {
	mounted
	local byte before
	for byte in 255 1 128 90; do
		"$TOOL" nonsense "$(supervisor_pid)" "$byte"
		before=$(observed windows)
		forget_pages "$MNT/one"
		"$TOOL" read sequential "$MNT/one"
		"$TOOL" read direct "$MNT/small"
		assert_le $((before + 4)) "$(observed windows)" "windows"
		cairn status --json >"$T/stdout"
	done
	"$TOOL" nonsense "$(supervisor_pid)" 0
	assert_says "$(verdict_of "$MNT/one" sequential)" '^sequential '
	assert_eq "$(status .worker_restarts)" 1 "restarts of the worker"
}

# cgroup_new NAME: its folder; NAME may be below one made before
cgroup_new() {
	local root
	root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
	[ -n "$root" ] || skip "no cgroup2 is mounted"
	mkdir "$root/cairn-test-$$-$1" || skip "no cgroup can be made below $root"
	{ echo "$root/cairn-test-$$-$1"; cat "$T/cgroups" 2>/dev/null; } >"$T/cgroups.new"
	mv "$T/cgroups.new" "$T/cgroups"
	echo "$root/cairn-test-$$-$1"
}

that_a_cgroups_policy_goes_before_the_devices_also_for_those_below_it() {
	mounted
	local group
	group=$(cgroup_new outer)
	mkdir "$group/inner"
	{ echo "$group/inner"; cat "$T/cgroups"; } >"$T/cgroups.new"
	mv "$T/cgroups.new" "$T/cgroups"
	"$TOOL" policy "$(supervisor_pid)" cgroup "$(stat -c %i "$group")" 1000 0
	(
		echo "$BASHPID" >"$group/inner/cgroup.procs"
		assert_says "$(verdict_of "$MNT/four" sequential)" '^new '
	)
	assert_says "$(verdict_of "$MNT/four" sequential)" '^sequential '
	"$TOOL" nonsense "$(supervisor_pid)" 0
}

that_what_is_disabled_is_neither_heat_nor_told() {
	mounted
	local produced heat
	"$TOOL" policy "$(supervisor_pid)" device all 4 2
	produced=$("$TOOL" ring "$(supervisor_pid)" | cut -d ' ' -f 1)
	heat=$("$TOOL" heat "$(supervisor_pid)" 0 0 | awk '{ n += $1 } END { print n + 0 }')
	verdict_of "$MNT/one" sequential >"$T/stdout"
	"$TOOL" read direct "$MNT/one"
	assert_eq "$("$TOOL" ring "$(supervisor_pid)" | cut -d ' ' -f 1)" "$produced" "bytes produced"
	assert_le "$("$TOOL" heat "$(supervisor_pid)" 0 0 | awk '{ n += $1 } END { print n + 0 }')" "$heat" "heat"
	"$TOOL" nonsense "$(supervisor_pid)" 0
}

that_a_detached_device_leaves_no_heat_map() {
	mounted
	local ids
	ids=$(bpf_ids "$(supervisor_pid)")
	cairn umount "$MNT"
	cairn detach fs 2>/dev/null || true
	assert_eq "$(comm -23 <(echo "$ids") <(bpf_ids "$(supervisor_pid)") | grep -c map)" 1 "maps gone"
}

that_a_daemon_without_the_right_says_so_and_works() {
	need_device
	cairnd_config n
	cairnd_launch n "$TOOL" without-bpf
	D=n
	assert_says "$(hooks n)" '^off: no right to load BPF'
	mkdir -p "$T/n"
	cairn mount "file://$T/fs" "$T/n" --name fs
	diff -r "$T/tree" "$T/n" -x lost+found
	cairn umount "$T/n"
	cairnd_drop n
}

that_a_daemon_without_capabilities_says_so_and_exports() {
	need_tool setpriv
	cairnd_config c
	cairnd_launch c setpriv --bounding-set=-sys_admin,-bpf,-perfmon --inh-caps=-sys_admin,-bpf,-perfmon
	D=c
	assert_says "$(hooks c)" '^off: no right to load BPF'
	cairn export "file://$T/fs" --name fs >/dev/null
	cairnd_drop c
}

# launch_with_btf NAME FILE: a daemon that takes FILE for the kernel's BTF
launch_with_btf() {
	need_tool unshare
	cairnd_config "$1"
	cairnd_launch "$1" unshare -m bash -c "mount --bind '$2' /sys/kernel/btf/vmlinux && exec \"\$@\"" --
}

# The windows' own hooks are hidden from the loader: pages that are added are what is left.
that_windows_are_made_of_pages_where_nothing_better_is_there() {
	sed 's/page_cache_ra_/page_cache_no_/g' /sys/kernel/btf/vmlinux >"$T/btf"
	launch_with_btf p "$T/btf"
	D=p MNT=$T/p
	assert_says "$(hooks)" '^requests, windows \(pages added\)'
	mkdir -p "$MNT"
	mounted
	assert_says "$(verdict_of "$MNT/one" sequential)" '^sequential [0-9]+ 0 '
	assert_says "$(verdict_of "$MNT/two" stride)" '^stride [0-9]+ 262144 '
	assert_says "$(verdict_of "$MNT/three" random)" '^random 1 0 '
	cairn umount "$MNT"
	cairnd_drop p
}

# Only the tracepoints are hidden; whether fentry can be attached is found out by trying.
that_a_hook_the_kernel_refuses_is_replaced_by_the_next() {
	sed 's/btf_trace_page_cache_ra_/btf_trace_page_cache_no_/g' /sys/kernel/btf/vmlinux >"$T/btf"
	launch_with_btf f "$T/btf"
	assert_says "$(hooks f)" '^requests, windows \((fentry|pages added)\)'
	cairnd_drop f
}

that_a_kernel_without_btf_is_said_and_everything_else_works() {
	: >"$T/nothing"
	launch_with_btf b "$T/nothing"
	D=b
	assert_says "$(hooks b)" '^off: this kernel shows no BTF'
	cairn export "file://$T/fs" --name fs >/dev/null
	cairnd_drop b
}

that_it_can_be_switched_off() {
	cairnd_start o observe.enable=off
	assert_says "$(hooks o)" '^off: \[observe\] enable = off'
	assert_eq "$(bpf_ids "$(supervisor_pid o)")" "" "what the supervisor holds of BPF"
	cairnd_drop o
}

that_programs_and_maps_end_with_a_stop() {
	local ids
	cairnd_start s
	ids=$(bpf_ids "$(supervisor_pid s)")
	assert_le 6 "$(wc -l <<<"$ids")" "programs and maps"
	cairnd_stop s
	wait_until 10 bpf_is_gone "$ids" || fail "left: $ids"
}

that_programs_and_maps_end_with_a_kill_of_both() {
	local ids s w
	ids=$(bpf_ids "$(supervisor_pid)")
	assert_le 6 "$(wc -l <<<"$ids")" "programs and maps"
	s=$(supervisor_pid) w=$(worker_pid)
	kill -KILL "$s" "$w"
	wait_until 10 pid_gone "$w" || fail "the worker stays"
	wait_until 10 bpf_is_gone "$ids" || fail "left: $ids"
}

need_device
[ -x "$TOOL" ] || { echo "no $TOOL: run make $TOOL first" >&2; exit 1; }
mkdir -p "$T/tree"
for f in one two three four; do random_file "$T/tree/$f" 20000000 "$f"; done
random_file "$T/tree/hot" 16000000 hot
random_file "$T/tree/small" 2000000 small
cairn image build "$T/tree" "$T/fs" --fs ext4
cairnd_start a
case "$(hooks)" in
off:*) that_one_line_at_start_names_the_hooks() { skip "the observer is $(hooks)"; } ;;
esac
run_tests
