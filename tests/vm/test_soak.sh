#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A minute of the soak on the kernel's own NBD: file systems and a device whose workers and supervisors are
# killed and replaced, whose store is too small and whose disk is full.
. "$(dirname "$0")/nbd.sh"
. "$(dirname "$0")/../soak/lib.sh"

D=soak
BOUND_MS=${CAIRN_SOAK_BOUND_MS:-120000} # a guest on two emulated processors beside others
KINDS=(worker_kill worker_kill worker_kill worker_stop evict origin disk)
FAULTS_OF_ORIGIN=(stalls is_gone is_slow)

origin_pid() { cat "$T/origin.pid"; }
origin_start() { # PORT
	setsid "$BUILD/bench/origin" --port "$1" "$T/pub" >"$T/origin.url" 2>"$T/origin.log" </dev/null &
	echo $! >"$T/origin.pid"
	disown $!
	wait_until 20 grep -q http "$T/origin.url" || fail "the origin does not start: $(cat "$T/origin.log")"
	URL=$(head -1 "$T/origin.url")
	URL=${URL%/}
}
befall_origin_set() {
	case "$1" in
	stalls) kill -STOP "$(origin_pid)" ;;
	is_gone) kill -KILL "$(origin_pid)" ;;
	is_slow) curl -sS --max-time 20 "$URL/__set?delay_ms=900" >/dev/null ;;
	esac
}
befall_origin_clear() {
	kill -CONT "$(origin_pid)" 2>/dev/null || origin_start "${URL##*:}"
	curl -sS --max-time 20 "$URL/__set?delay_ms=0" >/dev/null
}

readers_of_soak() {
	printf '%s\n' "direct:$MNT/big:$T/tree/big" "cached:$MNT/big:$T/tree/big" "cached:$T/ext4/small:$T/tree/small" \
		"direct:$T/ext4/big:$T/tree/big" "direct:$DEV:$T/img" "cached:$DEV:$T/img" "nbd:$EXPORT:$T/img"
}

add_kinds() {
	if cairn upgrade --help >/dev/null 2>&1; then KINDS+=(upgrade); fi
	if [ "$(status .supervisor.takeovers)" != null ]; then KINDS+=(supervisor_kill); fi
}

all_up() {
	cairn mount "$URL/erofs" "$MNT" --name erofs
	cairn mount "$URL/ext4" "$T/ext4" --name ext4
	DEV=$(cairn attach "$URL/img" --name img)
	EXPORT=$(uri "$URL/img" --name img)
}
all_down() {
	cairn umount "$MNT"
	cairn umount "$T/ext4"
	cairn detach img
}

that_readers_see_nothing_of_what_befalls_the_daemon_its_origin_and_its_disk() {
	local before
	add_kinds
	mkdir -p "$T/ext4"
	all_up
	all_down
	before=$(soak_counts)
	all_up
	soak
	tree_hashes "$T/tree" >"$T/want"
	drop_caches
	tree_hashes "$MNT" | cmp - "$T/want" || soak_fail "the tree differs"
	tree_hashes "$T/ext4" | cmp - "$T/want" || soak_fail "the tree differs"
	all_down
	soak_leaves_nothing "$before"
	assert_connected ''
}

exec 3>&1
mkdir -p "$T/pub" "$T/tree"
random_file "$T/img" $((16 * 1024 * 1024 + 4096)) img
random_file "$T/tree/big" $((24 * 1024 * 1024 + 777)) big
random_file "$T/tree/small" 8192 small
cairn image push --quiet "$T/img" "file://$T/pub/img" >/dev/null
for fs in erofs ext4; do
	cairn image build --quiet "$T/tree" "$T/$fs.img" --fs $fs >/dev/null
	cairn image push --quiet "$T/$fs.img" "file://$T/pub/$fs" >/dev/null
done
origin_start 0
# without the observer, whose programs each new supervisor loads for seconds here
cairnd_config $D store.size=64MiB fill.deadline=40 observe.enable=off
mount -t tmpfs -o size=80m cairn-soak "$T/d/$D/store"
cairnd_launch $D || { cat "$T/d/$D/log"; exit 1; }
run_tests
