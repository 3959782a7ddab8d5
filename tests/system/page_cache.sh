# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# How much of a mounted image, and of the store's own files, is in the page cache; beside lib.sh.

# cached_bytes FILE...
cached_bytes() { fincore -bnr -o RES "$@" | awk '{ n += $1 } END { print n + 0 }'; }
store_cached() { cached_bytes "$T/d/$D/store/objects"/image-*/data; }
mount_cached() { find "$MNT" -type f -print0 | xargs -0 fincore -bnr -o RES | awk '{ n += $1 } END { print n + 0 }'; }
read_mount() { find "$MNT" -type f -print0 | xargs -0 cat >/dev/null; }

# store_holds_at_most PERCENT BYTES: of BYTES, in the page cache
store_holds_at_most() { [ "$(store_cached)" -le $(($2 * $1 / 100)) ]; }
