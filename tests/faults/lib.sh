# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the system tests of faults share, beside tests/system/lib.sh.
FAULTS=$ROOT/tests/faults
LEN=$((5300 * 1000)) # of images: two extents, the last block not whole

# --- the misbehaving origin ---------------------------------------------------------------------

# origin_start: HTTP, HTTPS and CONTROL are its ports
origin_start() {
	certificate good
	certificate stranger
	setsid "$FAULTS/origin" "$T/pub" "$T/good.pem" "$T/good.key" >"$T/origin.ports" 2>"$T/origin.log" </dev/null &
	disown $!
	wait_until 20 grep -q control "$T/origin.ports" || { cat "$T/origin.log"; echo "the origin did not start"; exit 1; }
	HTTP=$(port_of http) HTTPS=$(port_of https) CONTROL=$(port_of control)
}
port_of() { awk -v k="$1" '$1 == k { print $2 }' "$T/origin.ports"; }
origin() { curl -sS --max-time 30 "http://127.0.0.1:$CONTROL/$1" >"$T/origin.said"; }

certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
		-addext 'subjectAltName=DNS:localhost,DNS:origin.test,IP:127.0.0.1' -keyout "$T/$1.key" -out "$T/$1.pem" 2>/dev/null
}

# publish CASE [SEED]: an image of its own, at file://$T/pub/CASE/img; its bytes in $T/img.CASE
publish() {
	mkdir -p "$T/pub/$1"
	random_file "$T/img.$1" "$LEN" "$1"
	cairn image push --quiet "$T/img.$1" "file://$T/pub/$1/img" >/dev/null
}

# publish_tree FOLDER CASE: the same of an erofs image of FOLDER
publish_tree() {
	mkdir -p "$T/pub/$2"
	cairn image build --quiet "$1" "$T/fs.$2" --fs erofs >/dev/null
	cairn image push --quiet "$T/fs.$2" "file://$T/pub/$2/img" >/dev/null
}

# --- reading --------------------------------------------------------------------------------------

piece() { dd if="$1" bs=4096 skip=$(($2 / 4096)) count=$(($3 / 4096)) status=none; }

# assert_piece URI FILE OFFSET: 64 KiB there are the file's
assert_piece() { nbd_read "$1" "$3" 65536 | cmp - <(piece "$2" "$3" 65536) || fail "$1 differs at $3"; }
