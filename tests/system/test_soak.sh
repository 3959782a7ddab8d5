#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# A minute of the soak (make soak is longer): mounts and a device on loop devices, an export over its socket,
# a store too small for what is read, and an origin that fails.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../faults/lib.sh"
. "$(dirname "$0")/../soak/lib.sh"

D=soak
KINDS=(worker_kill worker_kill worker_stop evict evict origin origin origin disk)
FAULTS_OF_ORIGIN=('status&value=503' 'status&value=503,Retry-After:%201' 'status&value=429' 'status&value=500' reset
	hang_up 'slow_head&value=1' 'slow_body&value=1.5' stall_head stall_body no_body short_body reset_body
	'flip&times=1' if_match away)

befall_origin_set() {
	if [ "$1" = away ]; then
		origin 'listen?on=0'
	else
		origin "set?case=soak&kind=$1"
	fi
}
befall_origin_clear() { origin 'clear?case=soak'; origin 'listen?on=1'; }

readers_of_soak() {
	printf '%s\n' "direct:$MNT/big:$T/tree/big" "cached:$MNT/big:$T/tree/big" "cached:$MNT/small:$T/tree/small" \
		"direct:$T/ext4/big:$T/tree/big" "cached:$T/ext4/big:$T/tree/big" "direct:$DEV:$T/img" "cached:$DEV:$T/img" \
		"nbd:$EXPORT:$T/img" "nbd:$EXPORT:$T/img"
}

# What this tree can do.
add_kinds() {
	if cairn upgrade --help >/dev/null 2>&1; then KINDS+=(upgrade); fi
	if [ "$(status .supervisor.takeovers)" != null ]; then KINDS+=(supervisor_kill); fi
}

all_up() {
	local url=http://127.0.0.1:$HTTP/soak
	cairn mount "$url/erofs" "$MNT" --name erofs
	cairn mount "$url/ext4" "$T/ext4" --name ext4
	DEV=$(cairn attach "$url/img" --name img)
	EXPORT=$(uri "$url/img" --name img)
}
all_down() {
	cairn umount "$MNT"
	cairn umount "$T/ext4"
	cairn detach img
}

that_a_seed_draws_the_same_schedule_each_time_and_another_seed_another() {
	soak_schedule 7 600 >"$T/one"
	soak_schedule 7 600 | cmp - "$T/one"
	soak_schedule 8 600 >"$T/two"
	refute cmp -s "$T/one" "$T/two"
	assert_le 100 "$(wc -l <"$T/one")" "events in ten minutes"
	sort -c -s -n -k 1,1 "$T/one"
	assert_eq "$(grep -c origin_set "$T/one")" "$(grep -c origin_clear "$T/one")" "faults that end"
}

that_readers_see_nothing_of_what_befalls_the_daemon_its_origin_and_its_disk() {
	need_device
	need_filesystem erofs
	local before
	add_kinds
	mkdir -p "$T/ext4"
	all_up
	all_down
	before=$(soak_counts) # with all three images known to the store
	all_up
	soak
	tree_hashes "$T/tree" >"$T/want"
	drop_caches
	tree_hashes "$MNT" | cmp - "$T/want" || soak_fail "the tree differs"
	tree_hashes "$T/ext4" | cmp - "$T/want" || soak_fail "the tree differs"
	all_down
	soak_leaves_nothing "$before"
	cairnd_stop
	umount "$T/d/soak/store"
	wait_until 10 eval '[ -z "$(loops_of_scratch; mounts_of_scratch)" ]' || fail "left: $(loops_of_scratch; mounts_of_scratch)"
}

exec 3>&1
mkdir -p "$T/pub/soak" "$T/tree"
random_file "$T/img" $((24 * 1024 * 1024 + 4096)) img
random_file "$T/tree/big" $((40 * 1024 * 1024 + 777)) big
random_file "$T/tree/small" 8192 small
cairn image push --quiet "$T/img" "file://$T/pub/soak/img" >/dev/null
for fs in erofs ext4; do
	cairn image build --quiet "$T/tree" "$T/$fs.img" --fs $fs >/dev/null
	cairn image push --quiet "$T/$fs.img" "file://$T/pub/soak/$fs" >/dev/null
done
origin_start
cairnd_config $D store.size=64MiB fill.deadline=60
need_root 2>/dev/null && mount -t tmpfs -o size=90m cairn-soak "$T/d/$D/store"
cairnd_launch $D || { cat "$T/d/$D/log"; exit 1; }
run_tests
