#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The protocol byte by byte, good and bad (nbd_protocol.py speaks it over raw sockets), against a
# running daemon that serves a sealed image.
. "$(dirname "$0")/lib.sh"

random_file "$T/o/img" $((8 * 1024 * 1024 + 1000))
cairn image seal "file://$T/o/img" >"$T/seal.out" 2>&1 || { cat "$T/seal.out"; exit 1; }
cairnd_start a || { show_logs; exit 1; }
assert_image_equals "$(uri "file://$T/o/img" --name img)" "$T/o/img"

rc=0
timeout -k 5 300 "$ROOT/tests/system/nbd_protocol.py" "$T/d/a/n.sock" img "$T/o/img" >"$T/lines" 2>&1 || rc=$?
sed -E 's/^(ok|not ok) - /\1 - nbd protocol: /' "$T/lines"
if [ "$(status .worker_restarts)" = 0 ]; then
	echo "ok - nbd protocol: the worker lived through all of it"
else
	echo "not ok - nbd protocol: the worker lived through all of it"
	rc=1
fi
[ $rc = 0 ] || show_logs
exit $rc
