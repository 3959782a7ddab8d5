# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the VM tests of kernel NBD share, beside tests/system/lib.sh.
. "$(dirname "$0")/../system/lib.sh"

U_DIR=$BUILD/vm/images
U=file://$U_DIR
SUMS=$BUILD/vm/images/sums

# The kernel's devices that are connected: names, as many as there are.
nbd_connected() { (cd /sys/block && for d in nbd*; do if [ -e "$d/pid" ]; then echo "$d"; fi; done); }
assert_connected() { assert_eq "$(nbd_connected | xargs)" "$1" "connected devices"; }

# Every file, link and folder of the mounted tree is as it was.
assert_tree() {
	tree_hashes "$1" >"$T/sums"
	cmp "$SUMS" "$T/sums" || fail "the tree on $1 differs: $(diff "$SUMS" "$T/sums" | head -5)"
}

# Reads of DEVICE, past the page cache, until load_stop; errors are counted, not told.
load_start() {
	rm -f "$T/load.stop"
	(
		n=0
		while [ ! -e "$T/load.stop" ]; do
			if dd if="$1" of=/dev/null bs=64k skip=$((n * 7 % 250)) count=4 iflag=direct status=none 2>/dev/null; then
				echo ok
			else
				echo error
				sleep 0.05
			fi
			n=$((n + 1))
		done
	) >"$T/load" &
	echo $! >"$T/load.pid"
	wait_until 20 load_is_over 3 || fail "no read came back at first"
}
load_count() { grep -c "^$1" "$T/load" || true; }
load_is_over() { [ "$(load_count ok)" -gt "$1" ]; }

# The reader must come back by itself: a read that hangs can't be killed.
load_stop() {
	touch "$T/load.stop"
	wait_until "${1:-20}" pid_gone "$(cat "$T/load.pid")" || fail "a read hangs"
}
