# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a system test stands on: a scratch folder, Azurite, daemons, a few assertions, and a clean-up
# that always runs. Sourced by test_*.sh; each of those defines functions `that_<sentence>` and ends
# with `run_tests`, which runs them in order, each in a subshell, and prints one line for each:
#
#   ok - main job: every file reads back equal
#   not ok - ...            followed by where it failed, its output, and the ends of the logs
#   skip - ... # reason
#
# State that outlives a subshell is in files under $T. Daemons have names; the plain helpers speak to
# the one that $D names ("a" unless set).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$ROOT/build}
CAIRN=${CAIRN:-$BUILD/cairn}
CAIRND=${CAIRND:-$BUILD/cairnd}
AZURITE=$ROOT/build/azurite/node_modules/azurite/dist/src/blob/main.js
AZ=$ROOT/tests/system/azure.py
SUBJECT=$(basename "$0" .sh)
SUBJECT=${SUBJECT#test_}

T=$(mktemp -d /tmp/cairn-test.XXXXXX) # short: a unix socket's path ends at 107 characters
chmod 755 "$T"                        # daemons run as nobody too
MNT=$T/mnt
D=a
mkdir -p "$T/d" "$MNT"

# --- clean-up ---------------------------------------------------------------------------------

pid_alive() { # a zombie is not alive, unless threads of it are still on their way out
	local s threads=("/proc/$1/task/"*)
	s=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
	[ -n "$s" ] && { { [ "$s" != Z ] && [ "$s" != X ]; } || [ ${#threads[@]} -gt 1 ]; }
}

# wait_until SECONDS COMMAND...: 0 as soon as the command succeeds, 1 when the time is over
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

pid_gone() { ! pid_alive "$1"; }

# Processes with our scratch folder in their arguments: ours, whoever is their parent now.
pids_of_scratch() {
	local p
	for p in $(grep -laF -- "$T" /proc/[0-9]*/cmdline 2>/dev/null); do
		p=${p#/proc/}
		p=${p%/cmdline}
		# not us, nor the grep itself, which has ended
		if [ "$p" != $$ ] && [ "$p" != "$BASHPID" ] && [ -d "/proc/$p" ]; then echo "$p"; fi
	done
}

mounts_of_scratch() { awk -v t="$T" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | tac; }
loops_of_scratch() { losetup -lnO NAME,BACK-FILE 2>/dev/null | awk -v t="$T" 'index($2, t) == 1 { print $1 }'; }

clean_up() {
	local rc=$? x pids loops
	trap - EXIT ERR
	trap '' INT TERM HUP
	set +e
	cd /
	# Mounts first, then what they stand on, then by force: a dead FUSE server must not hold us. The
	# list of loop devices is made now, since their files lose our path with the last unmount.
	loops=$(loops_of_scratch)
	for x in $(mounts_of_scratch); do timeout 10 umount "$x" 2>/dev/null; done
	for x in $loops; do timeout 10 losetup -d "$x" 2>/dev/null; done
	for x in $(mounts_of_scratch); do timeout 10 umount "$x" 2>/dev/null || timeout 10 umount -l "$x" 2>/dev/null; done
	# By our folder in their arguments, never by a pid that was written down: it may be another's now.
	# A worker's arguments do not show whose it is, but its parent's do.
	pids=$(pids_of_scratch)
	pids="$pids $(for x in $pids; do pgrep -P "$x"; done)"
	for x in $pids; do kill -TERM "$x" 2>/dev/null; done
	for x in $pids; do wait_until 5 pid_gone "$x" || kill -KILL "$x" 2>/dev/null; done
	for x in $(pids_of_scratch); do kill -KILL "$x" 2>/dev/null; done
	for x in $(mounts_of_scratch); do
		timeout 10 fusermount3 -u -z "$x" 2>/dev/null || timeout 10 umount -l "$x" 2>/dev/null
	done
	for x in $(loops_of_scratch); do timeout 10 losetup -d "$x" 2>/dev/null; done
	for x in $(cat "$T/cgroups" 2>/dev/null); do wait_until 5 rmdir "$x"; done
	if [ -n "${CAIRN_TEST_KEEP-}" ] && [ $rc != 0 ]; then
		echo "# kept: $T" >&2
	else
		rm -rf --one-file-system "$T"
	fi
	exit $rc
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- running ----------------------------------------------------------------------------------

sentence() { local s=${1#that_}; echo "${SUBJECT//_/ }: ${s//_/ }"; }

# The ends of the logs that were written to since the running test began.
show_logs() {
	local f
	for f in "$T"/d/*/log "$T"/azurite/log; do
		if [ ! -s "$f" ] || { [ -e "$T/began" ] && [ ! "$f" -nt "$T/began" ]; }; then continue; fi
		echo "  --- the end of ${f#"$T"/} ---"
		tail -n 20 "$f" | cut -c 1-300 | sed 's/^/  | /'
	done
}

# Skips the test that calls it.
skip() { echo "$*" >"$T/skip"; exit 77; }

# A figure that is shown, not judged, below the line of the test that calls it.
note() { echo "$*" >>"$T/notes"; }

need_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
need_tool() { command -v "$1" >/dev/null || skip "needs the tool $1"; }
need_filesystem() { grep -qw "$1" /proc/filesystems || skip "this kernel has no $1"; }
need_device() {
	need_root
	[ -c /dev/loop-control ] || skip "needs /dev/loop-control"
	[ -c /dev/fuse ] || skip "needs /dev/fuse"
}

run_one() {
	local name=$1 rc start=$SECONDS
	rm -f "$T/skip" "$T/notes"
	touch "$T/began"
	set +e
	(
		set -eE
		trap 'echo "at ${BASH_SOURCE[0]##*/}:${LINENO}: $BASH_COMMAND" >&2' ERR
		trap - EXIT
		"$name"
	) >"$T/out" 2>&1
	rc=$?
	set -e
	if [ $rc = 0 ]; then
		echo "ok - $(sentence "$name") ($((SECONDS - start)) s)"
	elif [ $rc = 77 ] && [ -f "$T/skip" ]; then
		echo "skip - $(sentence "$name") # $(cat "$T/skip")"
	else
		echo "not ok - $(sentence "$name") (exit $rc, $((SECONDS - start)) s)"
		sed 's/^/  /' "$T/out" | tail -n 40
		show_logs
		FAILED=1
	fi
	[ ! -f "$T/notes" ] || sed 's/^/# /' "$T/notes"
}

# Every that_* of the file in order, or those named in $CAIRN_TEST_ONLY (a regular expression).
run_tests() {
	local f
	FAILED=0
	for f in $(sed -n 's/^\(that_[a-zA-Z0-9_]*\)().*/\1/p' "$0"); do
		if [ -z "${CAIRN_TEST_ONLY-}" ] || [[ $f =~ $CAIRN_TEST_ONLY ]]; then
			run_one "$f"
		fi
	done
	exit "$FAILED"
}

# --- assertions -------------------------------------------------------------------------------

fail() { echo "$*" >&2; exit 1; }

# assert_eq GOT WANTED WHAT
assert_eq() { [ "$1" = "$2" ] || fail "$3: got '$1', wanted '$2'"; }

# assert_le LESS MORE WHAT (whole numbers)
assert_le() { [ "$1" -le "$2" ] || fail "$3: $1 is over $2"; }

# refute COMMAND...: it fails (`!` alone does not end a test under set -e)
refute() { if "$@"; then fail "succeeded, but should not: $*"; fi; }

# assert_says TEXT REGEX: the text matches (extended, any case)
assert_says() { grep -qiE -- "$2" <<<"$1" || fail "expected /$2/ in: $1"; }

# assert_fails REGEX COMMAND...: it exits 1 or 2 and its stderr matches; the text goes to $SAID.
# Exit 124 would be our own time limit, over 128 a crash: neither is a clear error.
assert_fails() {
	local want=$1 rc=0
	shift
	SAID=$("$@" 2>&1 >"$T/stdout") || rc=$?
	if [ $rc != 1 ] && [ $rc != 2 ]; then
		fail "exit $rc where an error was wanted (/$want/): $*: $SAID"
	fi
	assert_says "$SAID" "$want"
	grep -qE '^(ERROR|==[0-9]+==)|Assertion|Segmentation' <<<"$SAID" && fail "crashed: $SAID"
	return 0
}

# assert_no_secret FILE...: none of the secrets of this run is in there
assert_no_secret() {
	local f s
	for f in "$@"; do
		[ -e "$f" ] || continue
		for s in "${SECRETS[@]}"; do
			if grep -qaF -- "$s" "$f"; then fail "a secret is in ${f#"$T"/}: $(grep -aF -- "$s" "$f" | head -3)"; fi
		done
	done
}
SECRETS=()

# --- Azurite ----------------------------------------------------------------------------------

# azurite_start [KEY]: on a free port, with an account key made for this run (so that one that leaks
# is seen) and a container `images`. Sets AZURITE_URL, the AZURE_STORAGE_* variables and $U, the container's URL.
# AZURITE_EXTRA: more arguments for it.
AZURITE_EXTRA=()
azurite_start() {
	[ -f "$AZURITE" ] || { echo "no Azurite: run tests/setup first" >&2; exit 1; }
	mkdir -p "$T/azurite/data"
	export AZURE_STORAGE_ACCOUNT=devstoreaccount1
	AZURE_STORAGE_KEY=${1:-$(head -c 64 /dev/urandom | base64 -w0)}
	export AZURE_STORAGE_KEY
	printf '%s' "$AZURE_STORAGE_KEY" >"$T/azurite/key"
	chmod 600 "$T/azurite/key"
	SECRETS+=("$AZURE_STORAGE_KEY")
	# setsid here and below: a Ctrl-C is for the test, which then stops everything in order
	AZURITE_ACCOUNTS="$AZURE_STORAGE_ACCOUNT:$AZURE_STORAGE_KEY" \
		setsid node "$AZURITE" --blobHost 127.0.0.1 --blobPort 0 --location "$T/azurite/data" \
		--silent --disableTelemetry "${AZURITE_EXTRA[@]}" >"$T/azurite/log" 2>&1 </dev/null &
	wait_until 60 grep -q 'successfully listens on' "$T/azurite/log" ||
		{ echo "Azurite did not start in 60 s:"; cat "$T/azurite/log"; exit 1; }
	AZURITE_URL=$(sed -n 's/.*successfully listens on //p' "$T/azurite/log")
	export AZURITE_URL
	U=$AZURITE_URL/$AZURE_STORAGE_ACCOUNT/images
	"$AZ" create images
}

azurite_pid() {
	local p
	for p in $(pids_of_scratch); do
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = node ]; then echo "$p"; return 0; fi
	done
	return 1
}

# blob_names PATTERN: the blobs of the container whose name matches
blob_names() { "$AZ" list images | awk '{ print $1 }' | grep -E -- "$1" || true; }
blob_bytes() { "$AZ" list images | awk -v p="$1" '$1 ~ p { n += $2 } END { print n + 0 }'; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# --- daemons ----------------------------------------------------------------------------------

# cairnd_config NAME [SECTION.KEY=VALUE...]: writes $T/d/NAME/cairnd.ini
cairnd_config() {
	local name=$1 dir=$T/d/$1 kv
	shift
	mkdir -p "$dir/run" "$dir/store"
	{
		declare -A ini=(
			[daemon.control_socket]=$dir/c.sock
			[daemon.runtime_dir]=$dir/run
			[daemon.log_level]=info
			[nbd.socket]=$dir/n.sock
			[store.path]=$dir/store
			[store.size]=8GiB
			[fill.deadline]=20
		)
		if [ -f "$T/azurite/key" ]; then
			ini[azure.account]=$AZURE_STORAGE_ACCOUNT
			ini[azure.key_file]=$T/azurite/key
		fi
		for kv in "$@"; do ini[${kv%%=*}]=${kv#*=}; done
		for kv in daemon nbd store fill origin azure image observe; do
			echo "[$kv]"
			for key in "${!ini[@]}"; do
				if [ "${key%%.*}" = "$kv" ] && [ -n "${ini[$key]}" ]; then
					echo "${key#*.} = ${ini[$key]}"
				fi
			done
		done
	} >"$dir/cairnd.ini"
}

# A worker of the daemon itself answers, and not the one that its predecessor left.
cairnd_is_up() {
	local pid
	pid=$(D=$1 cairn status --json 2>/dev/null | jq .supervisor.pid)
	[ -n "$pid" ] && [ "$pid" = "$(cat "$T/d/$1/pid")" ]
}

# Starts the daemon NAME with the configuration it has. Extra words stand before it (setpriv ...).
cairnd_launch() {
	local name=$1 dir=$T/d/$1
	shift
	[ -x "$CAIRND" ] || { echo "no $CAIRND: run make first" >&2; exit 1; }
	# A daemon takes its credentials from its configuration, as one started by systemd does.
	env -u AZURE_STORAGE_ACCOUNT -u AZURE_STORAGE_KEY -u AZURE_STORAGE_SAS_TOKEN \
		-u AZURE_STORAGE_CONNECTION_STRING setsid "$@" "$CAIRND" -c "$dir/cairnd.ini" >>"$dir/log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	disown $! # or bash says so when it is killed
	local end=$((SECONDS + 30))
	until cairnd_is_up "$name"; do
		if ! pid_alive "$(cat "$dir/pid")"; then
			echo "cairnd $name ended at start"
			return 1
		fi
		[ $SECONDS -lt $end ] || { echo "cairnd $name was not ready in 30 s"; return 1; }
		sleep 0.1
	done
}

# cairnd_start NAME [SECTION.KEY=VALUE...]
cairnd_start() {
	cairnd_config "$@"
	cairnd_launch "$1"
}

supervisor_pid() { cat "$T/d/${1:-$D}/pid"; }

worker_pid() { # `cairnd --worker RUNTIME_DIR`, whose child it ever may be
	local p
	for p in $(pids_of_scratch); do
		if pid_alive "$p" && tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "--worker $T/d/${1:-$D}/run "; then
			echo "$p"
			return 0
		fi
	done
	return 1
}

# A clean stop, bounded.
cairnd_stop() {
	local pid
	pid=$(supervisor_pid "${1:-$D}")
	kill -TERM "$pid"
	wait_until 30 pid_gone "$pid" || { kill -KILL "$pid"; fail "cairnd ${1:-$D} did not stop within 30 s of SIGTERM"; }
}

# Both processes at once, as a power cut takes them.
cairnd_kill() {
	local s w
	s=$(supervisor_pid "${1:-$D}")
	w=$(worker_pid "${1:-$D}") || w=
	kill -KILL "$s" ${w:+"$w"}
	wait_until 10 pid_gone "$s" || fail "the supervisor survived SIGKILL"
	[ -z "$w" ] || wait_until 10 pid_gone "$w" || fail "the worker survived SIGKILL"
	# the kernel takes a ring apart after its process has gone, and its sockets listen some ms longer
	wait_until 5 nobody_listens "$T/d/${1:-$D}/c.sock" || fail "somebody still listens on c.sock"
	wait_until 5 nobody_listens "$T/d/${1:-$D}/n.sock" || fail "somebody still listens on n.sock"
}

nobody_listens() { # by curl, since a guest of the VM tests has no python
	local rc=0
	curl -s -o /dev/null --max-time 1 --unix-socket "$1" http://localhost/ || rc=$?
	[ $rc = 7 ] # could not connect
}

# Ends a daemon that may be there, so that the next test starts afresh.
cairnd_drop() {
	local pid
	pid=$(supervisor_pid "${1:-$D}" 2>/dev/null) || return 0
	if pid_alive "$pid"; then cairnd_stop "${1:-$D}"; fi
	rm -rf "$T/d/${1:-$D}"
}

# --- asking it --------------------------------------------------------------------------------

cairn() { timeout -k 5 "${LIMIT:-120}" "$CAIRN" --socket "$T/d/$D/c.sock" "$@"; }

status() { cairn status --json | jq -r "$1"; }        # status .counters.origin_get_bytes
image() { status ".images[] | select(.name == \"$1\") | $2"; } # image NAME .verified
origin_gets() { status '"\(.counters.origin_get_requests) \(.counters.origin_get_bytes)"'; }

# The NBD URI of an image, exporting it if needed.
uri() { cairn export "$@"; }

# assert_image_equals URI FILE: every byte, read by nbdcopy; the device is longer by zeros up to 4 KiB
assert_image_equals() {
	local got=$T/got.$BASHPID len
	len=$(stat -c %s "$2")
	timeout -k 5 "${LIMIT:-300}" nbdcopy "$1" "$got" || { rm -f "$got"; fail "nbdcopy failed on $1"; }
	cmp -n "$len" "$got" "$2" || { rm -f "$got"; fail "$1 differs from ${2#"$T"/}"; }
	assert_eq "$(stat -c %s "$got")" $(((len + 4095) / 4096 * 4096)) "length of the device"
	assert_eq "$(tail -c "+$((len + 1))" "$got" | tr -d '\0' | wc -c)" 0 "bytes after the image's end that are not zero"
	rm -f "$got"
}

# nbd_read URI OFFSET LENGTH: the bytes on stdout; fails with the server's error
# (Debian's own python3, whose packages have libnbd)
nbd_read() {
	timeout -k 5 "${LIMIT:-60}" /usr/bin/python3 - "$@" <<-'PY'
		import sys, nbd
		h = nbd.NBD()
		h.connect_uri(sys.argv[1])
		try:
		    sys.stdout.buffer.write(h.pread(int(sys.argv[3]), int(sys.argv[2])))
		except nbd.Error as e:
		    sys.exit(f"read failed: {e.errno} {e.string}")
	PY
}

# nbdsh with the python that has its module, whichever comes first in PATH
nbd_shell() { PATH=/usr/bin:$PATH timeout -k 5 "${LIMIT:-200}" nbdsh "$@"; }

# assert_read_is_eio URI OFFSET: a read there fails with EIO, and gives no byte
assert_read_is_eio() {
	local said rc=0
	said=$(nbd_read "$1" "$2" 4096 2>&1 >"$T/stdout") || rc=$?
	[ $rc != 0 ] || fail "a read at $2 succeeded where EIO was wanted"
	assert_says "$said" 'EIO'
	assert_eq "$(stat -c %s "$T/stdout")" 0 "bytes that a failed read gave"
}

# --- images -----------------------------------------------------------------------------------

# random_file FILE BYTES [SEED]: the same bytes each time, none of its blocks zero, 500 MB/s
random_file() {
	mkdir -p "$(dirname "$1")"
	openssl enc -aes-128-ctr -nosalt -pass "pass:${3:-cairn}" -md sha256 </dev/zero 2>/dev/null |
		head -c "$2" >"$1" || [ "$(stat -c %s "$1")" = "$2" ]
}

# real_tree DIR: several hundred real files and folders, with what trips people up added by hand
real_tree() {
	local d
	mkdir -p "$1"
	for d in /usr/include/linux /usr/share/perl /usr/share/zoneinfo/Europe; do
		if [ -d "$d" ]; then cp -a "$d" "$1/"; fi
	done
	cp "$(readlink -f "$(command -v python3)")" "$1/big"
	: >"$1/empty"
	printf 'no newline at the end' >"$1/a name with spaces"
	printf 'x' >"$1/$(printf 'n%.0s' $(seq 200))"
	truncate -s 3M "$1/hole"
	printf 'end' >>"$1/hole"
	ln -s big "$1/link"
	ln "$1/empty" "$1/hard"
	mkdir -p "$1/deep/er/and/deep/er"
	date >"$1/deep/er/and/deep/er/file"
}

# tree_hashes DIR: a line for each file, link and folder; equal lists mean equal trees
tree_hashes() {
	(
		cd "$1"
		find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0r sha256sum
		find . -path ./lost+found -prune -o \( -type l -printf 'l %p %l\n' -o -type d -printf 'd %p\n' \) | sort
	)
}

drop_caches() { sync; echo 3 >/proc/sys/vm/drop_caches; }
