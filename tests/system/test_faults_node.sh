#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# A node on a bad day: disks that fail, lie, fill up and lose power, a clock that jumps, no descriptors and no
# memory left, a worker that stands still. Readers get right bytes or EIO with a reason, and all is well afterwards.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../faults/lib.sh"

BADDISK=$BUILD/faults/baddisk
# Limits of a process are set by its own user, or with a capability that root in a container lacks.
export LIMITER="setpriv --reuid cairn --regid cairn --clear-groups prlimit"

# --- disks --------------------------------------------------------------------------------------

# disk NAME: a disk that does as $T/NAME.faults says (tests/faults/baddisk.c), at $T/NAME; its bytes are in $T/NAME.below,
# in memory, so that it is as fast on a machine whose disk is busy
disk() {
	need_device
	mkdir -p "$T/$1" "$T/$1.below"
	mountpoint -q "$T/$1.below" || mount -t tmpfs -o size=128m cairn-disk "$T/$1.below"
	: >"$T/$1.faults"
	setsid "$BADDISK" "$T/$1.below" "$T/$1.faults" "$T/$1" >"$T/$1.log" 2>&1 </dev/null &
	disown $!
	wait_until 20 mountpoint -q "$T/$1" || fail "no disk: $(cat "$T/$1.log")"
}
# disk_is NAME [FAULT...]: from now on
disk_is() {
	local name=$1
	shift
	printf '%s\n' "$@" >"$T/$name.new"
	mv "$T/$name.new" "$T/$name.faults"
}
# A loop device whose file lies on it lets go a moment after its own umount.
disk_gone() { wait_until 20 umount "$T/$1" || fail "the disk stays busy: $(fuser -vm "$T/$1" 2>&1)"; }

# What the page cache holds of the store's files is let go, so that the disk is asked.
forget_pages() {
	local f
	sync -f "$T/$1"
	find "$T/$1" -name "${2-data}" -type f | while read -r f; do dd if="$f" iflag=nocache count=0 status=none; done
}

store_errors() { cairn_metric cairn_store_errors_total; }
cairn_metric() { curl -s --max-time 20 --unix-socket "$T/d/$D/c.sock" http://localhost/metrics | awk -v m="$1" '$1 == m { print $2 }'; }
present_of() { image "$1" .bytes_present; }
gets() { status .counters.origin_get_requests; }

that_a_store_that_cannot_be_read_costs_speed_and_nothing_else() {
	local u
	disk read
	D=badread
	publish read
	cairnd_start badread "store.path=$T/read/store" fill.deadline=10
	cairn mount "$(fs_url)" "$MNT" --name fs
	u=$(uri "$(url read)" --name read)
	assert_image_equals "$u" "$T/img.read"
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	forget_pages read
	disk_is read 'read EIO data'
	assert_image_equals "$u" "$T/img.read"
	cairn mount "$(fs_url)" "$MNT" --name fs
	diff -r "$T/tree" "$MNT"
	assert_le 1 "$(gets)" "GETs for what the disk did not give"
	assert_says "$(cat "$T/d/badread/log")" "store file can't be read"
	# and no origin either: refused, and never a byte that is not the image's
	forget_pages read
	origin 'listen?on=0'
	assert_read_is_eio "$u" $((3 << 20))
	assert_says "$(image read .last_error)" 'connect|refused'
	disk_is read
	origin 'listen?on=1'
	assert_image_equals "$u" "$T/img.read"
	diff -r "$T/tree" "$MNT"
	cairn umount "$MNT"
	local before
	before=$(gets)
	assert_image_equals "$u" "$T/img.read"
	assert_eq "$(gets)" "$before" "GETs when the disk is well again"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	disk_gone read
}

# Each fault of writing, with an image of its own on the same disk: first the fault, then the disk is well.
that_a_store_that_cannot_be_written_costs_speed_and_is_used_again_afterwards() {
	local fault name u before i=0
	disk write
	D=badwrite
	cairnd_start badwrite "store.path=$T/write/store" fill.deadline=10 fill.readahead=0
	for fault in 'write EIO data' 'write ENOSPC data' 'write EIO present' 'change EROFS' 'write short'; do
		i=$((i + 1))
		name=write$i
		publish $name
		u=$(uri "$(url $name)" --name $name)
		assert_piece "$u" "$T/img.$name" 0
		disk_is write "$fault"
		before=$(store_errors)
		assert_image_equals "$u" "$T/img.$name"
		assert_image_equals "$u" "$T/img.$name"
		if [ "$fault" != 'write short' ]; then
			assert_le $((before + 1)) "$(store_errors)" "store errors counted after $fault"
			assert_le "$(present_of $name)" $((1 << 20)) "bytes in a store that was $fault"
		fi
		disk_is write
		assert_image_equals "$u" "$T/img.$name"
		assert_le "$LEN" "$(present_of $name)" "bytes in the store after $fault was over"
		before=$(gets)
		assert_image_equals "$u" "$T/img.$name"
		assert_eq "$(gets)" "$before" "GETs after $fault was over"
	done
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
	disk_gone write
}

that_a_worker_that_dies_over_a_read_only_store_is_back_when_it_can_be_written() {
	local u w
	disk ro
	D=ro
	publish ro
	cairnd_start ro "store.path=$T/ro/store" fill.deadline=10
	u=$(uri "$(url ro)" --name ro)
	assert_image_equals "$u" "$T/img.ro"
	disk_is ro 'change EROFS'
	w=$(worker_pid)
	kill -KILL "$w"
	wait_until 20 grep -qi 'store .*read-only' "$T/d/ro/log" || fail "the log does not say why there is no worker"
	disk_is ro
	wait_until 40 nbd_read "$u" 0 4096 || fail "no worker came back"
	assert_image_equals "$u" "$T/img.ro"
	cairnd_stop
	disk_gone ro
}

# Silent corruption: success is told and the bytes are others. After a stop that was not clean all is looked at.
that_a_disk_that_wrote_other_bytes_gives_none_of_them() {
	local fault
	disk lie
	D=lie
	publish lie
	for fault in 'write flip data' 'write lose data' 'write flip' 'write lose image-'; do
		cairnd_start lie "store.path=$T/lie/store" fill.deadline=10
		disk_is lie "$fault"
		assert_image_equals "$(uri "$(url lie)" --name lie)" "$T/img.lie"
		disk_is lie
		cairnd_kill
		disk_gone lie # and what the page cache remembers of it
		disk lie
		cairnd_launch lie
		assert_image_equals "$(uri "$(url lie)" --name lie)" "$T/img.lie"
		assert_eq "$(image lie .last_error)" "" "last error"
		cairnd_stop
		rm -rf "$T/lie/store" "$T/d/lie"
	done
	disk_gone lie
}

that_a_disk_that_reads_other_bytes_gives_none_of_them_after_an_unclean_stop() {
	disk rot
	D=rot
	publish rot
	cairnd_start rot "store.path=$T/rot/store" fill.deadline=10
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	cairnd_kill
	disk_gone rot
	disk rot
	disk_is rot 'read flip data'
	cairnd_launch rot
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	assert_le 1 "$(gets)" "GETs in place of what the disk gave"
	disk_is rot
	assert_image_equals "$(uri "$(url rot)" --name rot)" "$T/img.rot"
	cairnd_stop
	disk_gone rot
}

# The tree in the store goes bad under a worker that trusts it: then good bytes do not match.
that_a_tree_that_goes_bad_in_the_store_is_fetched_again() {
	local u f n=0
	D=tree
	publish badtree
	cairnd_start tree fill.deadline=10 fill.readahead=0
	u=$(uri "$(url badtree)" --name badtree)
	assert_piece "$u" "$T/img.badtree" 0
	for f in "$T/d/tree/store/objects/tree-"*/data; do
		python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for at in range(0, 80 * 32, 32):
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)' "$f"
		n=$((n + 1))
	done
	assert_eq $n 1 "trees in the store"
	assert_image_equals "$u" "$T/img.badtree"
	assert_eq "$(image badtree .last_error)" "" "last error"
	cairnd_stop
}

that_a_full_disk_is_used_again_when_it_has_room() {
	need_root
	local u v before
	D=room
	publish room1
	publish room2
	mkdir -p "$T/room"
	mount -t tmpfs -o size=24m cairn-room "$T/room"
	cairnd_start room "store.path=$T/room/store" fill.deadline=10
	u=$(uri "$(url room1)" --name room1)
	assert_image_equals "$u" "$T/img.room1"
	head -c 64M /dev/zero >"$T/room/ballast" 2>/dev/null || true # until ENOSPC
	v=$(uri "$(url room2)" --name room2) # what is in the store makes room for another image
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	assert_eq "$(image room1 .read_errors)" 0 "read errors"
	rm "$T/room/ballast"
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	before=$(gets)
	assert_image_equals "$u" "$T/img.room1"
	assert_image_equals "$v" "$T/img.room2"
	assert_eq "$(gets)" "$before" "GETs when the disk has room"
	cairnd_stop
	umount "$T/room"
}

that_a_store_mounted_read_only_is_refused_at_start() {
	need_root
	mkdir -p "$T/romnt"
	mount -t tmpfs -o ro cairn-ro "$T/romnt"
	cairnd_config rostart "store.path=$T/romnt"
	assert_fails "store. path = $T/romnt.*(read-only|written)" timeout 20 "$CAIRND" -c "$T/d/rostart/cairnd.ini"
	umount "$T/romnt"
}

# --- the power goes -----------------------------------------------------------------------------

# power_cut N: a store on ext4 on a loop device on a disk. While it fills, and now and then is synced in part (its
# presence map alone, which is the worst), the disk stops to take anything; what is on it then is all there is.
power_cut() {
	local d=cut$1 reader
	disk "$d"
	truncate -s 96M "$T/$d/image"
	mkfs.ext4 -q -E lazy_itable_init=1 "$T/$d/image"
	mkdir -p "$T/$d.mnt"
	mount -o loop,commit=1 "$T/$d/image" "$T/$d.mnt"
	D=$d
	cairnd_start "$d" "store.path=$T/$d.mnt/store" fill.deadline=10 fill.readahead=0
	assert_piece "$(uri "$(url small)" --name small)" "$T/img.small" 0
	cairnd_stop # a clean mark that is old when the power goes
	sync -f "$T/$d.mnt"
	cairnd_launch "$d"
	timeout 60 nbdcopy --connections=1 --requests=2 "$(uri "$(url power)" --name power)" null: &
	reader=$!
	wait_until 30 eval "[ \"\$(present_of power)\" -gt $((RANDOM % 6 * 1000000)) ]" || fail "nothing was filled"
	sync -d "$T/$d.mnt/store/objects/"*/present # and not the data
	sleep "0.$((RANDOM % 9))"
	disk_is "$d" 'write lose'
	wait $reader || fail "a disk that loses everything cost a reader"
	cairnd_kill
	umount "$T/$d.mnt"
	disk_gone "$d"
}

# What is left, in another boot.
power_back() {
	local d=cut$1 claimed
	echo 00000000-0000-4000-8000-00000000000"$1" >"$T/boot.$1"
	mount -o loop "$T/$d.below/image" "$T/$d.mnt"
	D=$d
	: >"$T/d/$d/log"
	# shellcheck disable=SC2016 # for the inner shell
	cairnd_launch "$d" unshare -m sh -c 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$T/boot.$1"
	assert_says "$(cat "$T/d/$d/log")" 'msg="opened".*stop=unclean'
	claimed=$(sed -n 's/.*msg="opened".* used=\([0-9]*\) .*/\1/p' "$T/d/$d/log")
	assert_image_equals "$(uri "$(url power)" --name power)" "$T/img.power"
	assert_image_equals "$(uri "$(url small)" --name small)" "$T/img.small"
	assert_eq "$(image power .last_error)" "" "last error"
	note "power cut $1: the store said it had $((claimed >> 10)) KiB, $(grep -c damaged "$T/d/$d/log") times blocks of it were not there"
	CLAIMED=$((CLAIMED + claimed))
	LOST=$((LOST + $(grep -c 'damaged' "$T/d/$d/log" || true)))
	cairnd_stop
	umount "$T/$d.mnt"
	wait_until 20 umount "$T/$d.below" || fail "the tmpfs stays busy"
}

that_after_a_power_cut_every_byte_is_right() {
	local i
	need_filesystem ext4
	publish small
	mkdir -p "$T/pub/power"
	random_file "$T/img.power" $((32 << 20)) power
	cairn image push --quiet "$T/img.power" "file://$T/pub/power/img" >/dev/null
	origin 'set?case=power&kind=slow_body&value=0.01'
	CLAIMED=0 LOST=0
	for i in 1 2; do
		power_cut $i
		power_back $i
	done
	# else the cuts came when there was nothing to lose, and nothing was tried
	assert_le 1 $CLAIMED "bytes that the stores said they had"
	assert_le 1 $LOST "blocks found wrong after the cuts"
}

# --- the clock ----------------------------------------------------------------------------------

clock_is() { echo "$1" >"$T/clock.new"; mv "$T/clock.new" "$T/clock"; }

that_a_clock_that_jumps_costs_no_reader() {
	local jump u
	D=clock
	publish clock
	clock_is 0
	cairnd_config clock fill.deadline=15 fill.readahead=0 "origin.ca_file=$T/good.pem"
	cairnd_launch clock env LD_PRELOAD="$BUILD/faults/clock.so" CAIRN_FAULTS_CLOCK="$T/clock"
	uri "$(url clock)" --name clock >/dev/null
	for jump in 315360000 -7200; do
		publish "jump$jump"
		u=$(uri "$(url "jump$jump")" --name "jump$jump" --refresh)
		assert_piece "$u" "$T/img.jump$jump" 0
		origin "set?case=jump$jump&kind=status&value=503&times=3" # so that it waits while the clock jumps
		assert_image_equals "$u" "$T/img.jump$jump" &
		sleep 0.3
		clock_is "$jump"
		wait $! || fail "a read failed over a jump of $jump s"
		assert_image_equals "$(uri "$(url clock)" --name "clock$jump")" "$T/img.clock"
		assert_says "$(tail -n 1 "$T/d/clock/log")" "ts=$(date -u -d "@$(($(date +%s) + jump))" +%Y-%m)" # it saw the jump
	done
	# a certificate of today is not good in ten years: that is said, and the right time mends it
	publish clocktls
	clock_is 0
	u=$(uri "https://127.0.0.1:$HTTPS/clocktls/img" --name clocktls)
	clock_is 315360000
	assert_read_is_eio "$u" 0
	assert_says "$(image clocktls .last_error)" 'certificate.*expired'
	clock_is 0
	assert_image_equals "$u" "$T/img.clocktls"
	cairnd_stop
}

# --- what a process needs -----------------------------------------------------------------------

that_without_descriptors_left_reads_wait_or_are_refused_and_go_on_afterwards() {
	local u w open
	D=fds
	publish fds
	publish fds2
	cairnd_start fds fill.deadline=3 fill.readahead=0 origin.connections=8
	u=$(uri "$(url fds)" --name fds)
	nbd_read "$u" 0 65536 >/dev/null
	w=$(worker_pid)
	open=$(find "/proc/$w/fd" -type l | wc -l)
	/usr/bin/python3 - "$u" "$T/img.fds" "$w" "$CONTROL" <<-'PY' || fail "see above"
		import os, subprocess, sys, time, urllib.request, nbd
		uri, file, worker, control = sys.argv[1:]
		want = open(file, "rb").read()
		ask = lambda q: urllib.request.urlopen(f"http://127.0.0.1:{control}/{q}", timeout=20).read()
		limit = lambda n: subprocess.run([*os.environ["LIMITER"].split(), "--pid", worker, f"--nofile={n}:"], check=True)
		h = nbd.NBD(); h.connect_uri(uri)
		limit(8)                                   # fewer than are open: no more can be
		ask("listen?on=0"); ask("listen?on=1")     # connections to the origin are gone, and can't be made anew
		assert h.pread(65536, 0) == want[:65536], "what was there"
		start = time.monotonic()
		try:
		    h.pread(65536, 4 << 20)
		    sys.exit("a read went through without a descriptor for the origin")
		except nbd.Error as e:
		    assert e.errno == "EIO", e.errno
		assert time.monotonic() - start < 33
		limit(4096)
		assert h.pread(65536, 4 << 20) == want[4 << 20:(4 << 20) + 65536], "afterwards"
	PY
	assert_says "$(image fds .last_error)" 'Too many open files'
	assert_image_equals "$u" "$T/img.fds"
	# clients and images that come meanwhile: refused or made to wait, and the processor is not burnt
	$LIMITER --pid "$w" --nofile=8:
	local ticks
	ticks=$(awk '{ print $14 + $15 }' "/proc/$w/stat")
	if LIMIT=5 cairn export "$(url fds2)" --name fds2 >/dev/null 2>&1; then fail "an export without descriptors"; fi
	LIMIT=2 refute nbd_read "$u" 0 4096 >/dev/null 2>&1
	ticks=$(($(awk '{ print $14 + $15 }' "/proc/$w/stat") - ticks))
	assert_le $ticks 200 "hundredths of a second of the processor in 4 to 7 s without descriptors"
	$LIMITER --pid "$w" --nofile=4096:
	wait_until 20 nbd_read "$u" 0 4096 || fail "no client comes in any more"
	assert_image_equals "$(uri "$(url fds2)" --name fds2)" "$T/img.fds2"
	wait_until 20 eval "[ \$(find /proc/$w/fd -type l | wc -l) -le $((open + 24)) ]" || fail "descriptors are left open: $(ls -l "/proc/$w/fd")"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
}

that_without_memory_left_reads_are_refused_and_go_on_afterwards() {
	local u w
	D=mem
	publish mem
	cairnd_start mem fill.deadline=5 fill.readahead=0
	u=$(uri "$(url mem)" --name mem)
	nbd_read "$u" 0 65536 >/dev/null
	w=$(worker_pid)
	/usr/bin/python3 - "$u" "$T/img.mem" "$w" <<-'PY' || fail "see above"
		import os, subprocess, sys, nbd
		uri, file, worker = sys.argv[1:]
		want = open(file, "rb").read()
		limit = lambda n: subprocess.run([*os.environ["LIMITER"].split(), "--pid", worker, f"--data={n}:unlimited"], check=True)
		h = nbd.NBD(); h.connect_uri(uri)
		limit(1 << 20)                             # less than it has: not a page more
		refused = 0
		for off in list(range(0, len(want) - 200000, 200000)) * 3:
		    try:
		        assert h.pread(200000, off) == want[off:off + 200000], f"WRONG BYTES at {off}"
		    except nbd.Error as e:
		        refused += 1
		        if h.aio_is_dead() or h.aio_is_closed():
		            h = nbd.NBD()
		            limit("unlimited"); h.connect_uri(uri); limit(1 << 20)
		limit("unlimited")
		print(f"{refused} reads refused")
		assert refused, "nothing was refused: no memory was short"
		h = nbd.NBD(); h.connect_uri(uri)
		for off in range(0, len(want) - 200000, 200000):
		    assert h.pread(200000, off) == want[off:off + 200000], f"afterwards, at {off}"
	PY
	assert_image_equals "$u" "$T/img.mem"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairnd_stop
}

# The worker stands still for ten seconds while a mount and an export are read, and while nobody does.
that_a_worker_that_stands_still_for_ten_seconds_delays_and_costs_nothing() {
	local u w
	need_device
	D=still
	publish still
	cairnd_start still fill.deadline=5 fill.readahead=0
	u=$(uri "$(url still)" --name still)
	assert_piece "$u" "$T/img.still" 0
	cairn mount "$(fs_url)" "$MNT" --name fs
	w=$(worker_pid)
	kill -STOP "$w"
	diff -r "$T/tree" "$MNT" &
	local a=$! b
	assert_image_equals "$u" "$T/img.still" &
	b=$!
	sleep 10
	pid_alive $a || fail "the mount's reader did not wait"
	kill -CONT "$w"
	wait $a || fail "the mount's reader failed"
	wait $b || fail "the export's reader failed"
	assert_eq "$(worker_pid)" "$w" "the worker's pid"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairn umount "$MNT"
	cairnd_stop
}

# --- the rest of a run --------------------------------------------------------------------------

url() { echo "http://127.0.0.1:$HTTP/$1/img"; }
fs_url() { url fs; }

make_fs() {
	local i
	mkdir -p "$T/tree"
	for i in $(seq 20); do random_file "$T/tree/file$i" 70000 "file$i"; done
	publish_tree "$T/tree" fs
}

mkdir -p "$T/pub"
origin_start
make_fs
run_tests
