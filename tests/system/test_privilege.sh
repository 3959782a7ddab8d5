#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# Who runs as what, who may open what, and what a worker in somebody else's hands can have of the
# supervisor. docs/security.md makes the claims.
. "$(dirname "$0")/lib.sh"

need_root
need_tool setpriv
id cairn >/dev/null 2>&1 || { echo "no user cairn: run tests/setup first" >&2; exit 1; }
CAIRN_UID=$(id -u cairn)
as_cairn() { setpriv --reuid=cairn --regid=cairn --init-groups --bounding-set=-all --inh-caps=-all "$@"; }
of_status() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }

that_the_worker_is_another_user_with_no_privilege() {
	local w cap
	cairnd_start a
	w=$(worker_pid)
	assert_eq "$(of_status "$w" Uid | xargs)" "$CAIRN_UID $CAIRN_UID $CAIRN_UID $CAIRN_UID" "its user ids"
	assert_eq "$(of_status "$w" Groups | xargs)" "$(id -G cairn)" "its groups"
	for cap in CapInh CapPrm CapEff CapBnd CapAmb; do
		assert_eq "$(of_status "$w" $cap)" 0000000000000000 "$cap of the worker"
	done
	assert_eq "$(of_status "$w" NoNewPrivs)" 1 "NoNewPrivs"
	assert_eq "$(of_status "$w" Seccomp)" 2 "Seccomp"
	assert_eq "$(of_status "$w" Seccomp_filters)" 2 "filters: the list, and no more rings"
	if [ "$(status .event_loop)" = io_uring ]; then refute grep -q 'no seccomp' "$T/d/a/log"; fi
}

that_sockets_and_store_are_nobody_elses() {
	assert_eq "$(stat -c '%a %U %G' "$T/d/a/c.sock")" '660 root cairn' "the control socket"
	assert_eq "$(stat -c '%a %U' "$T/d/a/n.sock")" '600 root' "the NBD socket"
	assert_eq "$(stat -c '%a %U' "$T/d/a/store")" '700 cairn' "the store"
	assert_eq "$(find "$T/d/a/store" ! -user cairn)" '' "files in the store that are not the worker's"
	refute setpriv --reuid=nobody --regid=nogroup --clear-groups curl -s --unix-socket "$T/d/a/c.sock" http://localhost/v1/status
	refute as_cairn "$CAIRN" --socket "$T/d/a/c.sock" export "file://$T/d/a/cairnd.ini"
}

that_nobody_of_the_workers_user_looks_into_the_worker() {
	local w f other
	w=$(worker_pid)
	setpriv --reuid=cairn --regid=cairn --init-groups --bounding-set=-all --inh-caps=-all sleep 30 &
	other=$!
	wait_until 10 as_cairn cat "/proc/$other/environ" # such a one may be looked into
	for f in environ maps mem auxv fd/0 cwd; do
		refute as_cairn cat "/proc/$w/$f" 2>/dev/null
		refute as_cairn cat "/proc/$(supervisor_pid)/$f" 2>/dev/null
	done
	kill $other
}

that_a_crash_leaves_no_core() {
	local w
	for w in "$(worker_pid)" "$(supervisor_pid)"; do
		assert_says "$(cat "/proc/$w/limits")" 'Max core file size +0 +0 '
	done
	w=$(worker_pid)
	kill -SEGV "$w"
	wait_until 20 grep -q 'signal=11' "$T/d/a/log"
	refute grep -q 'core=dumped' "$T/d/a/log"
	wait_until 20 status .version
	cairnd_stop
}

that_core_files_and_calls_are_given_back_when_asked_for() {
	local w
	cairnd_start b daemon.core_dumps=on daemon.seccomp=off
	w=$(worker_pid b)
	assert_eq "$(stat -c %U "/proc/$w/environ")" cairn "who may look into a worker that may leave a core"
	assert_eq "$(of_status "$w" Seccomp)" 0 "Seccomp"
	grep -q 'no seccomp filter.*seccomp = off' "$T/d/b/log"
	cairnd_stop b
}

that_a_missing_user_is_named_with_the_remedy() {
	cairnd_config c daemon.user=no-such-user
	assert_fails 'no-such-user.*systemd-sysusers' timeout 20 "$CAIRND" -c "$T/d/c/cairnd.ini"
	[ -z "$(ls "$T/d/c/store")" ] || fail "something was made all the same"
}

that_the_worker_reads_no_image_that_its_user_may_not() {
	cairnd_start d
	head -c 65536 /dev/urandom >"$T/mine"
	chmod 600 "$T/mine"
	D=d assert_fails "user $CAIRN_UID" cairn export "file://$T/mine"
	assert_says "$SAID" "$T/mine.*permission denied"
	chmod 644 "$T/mine"
	D=d cairn export "file://$T/mine"
	cairnd_stop d
}

# What was root's in the store is the worker's afterwards; what it could have planted there is not.
that_a_store_of_roots_is_handed_over_and_nothing_else() {
	local s=$T/d/e/store o
	head -c 100000 /dev/urandom >"$T/img"
	cairnd_start e daemon.user=root
	assert_eq "$(of_status "$(worker_pid e)" CapEff)" 000000000000000e "what a worker of root keeps of root"
	D=e cairn export "file://$T/img" --name x
	cairnd_stop e
	assert_eq "$(stat -c %U "$s/version")" root "owner of a store of root"
	o=$(find "$s/objects" -mindepth 1 -maxdepth 1 | head -1)
	[ -n "$o" ] || fail "no object to try with"
	mkdir "$T/precious"
	echo x >"$T/precious/data"
	echo x >"$T/linked"
	ln -s "$T/precious" "$s/objects/linked-folder"
	ln -s "$T/linked" "$o/linked-file"
	ln "$T/linked" "$o/second-name"
	mkdir -p "$o/deep/er"
	mkdir "$s/else"
	cairnd_config e
	cairnd_launch e
	assert_eq "$(stat -c %U "$s" "$s/version" "$s/objects" "$o" "$o/data" | sort -u)" cairn "owner of the store's own"
	assert_eq "$(stat -c %U "$T/precious" "$T/precious/data" "$T/linked" "$s/else" "$o/deep/er" | sort -u)" root "owner of the rest"
	D=e cairn export "file://$T/img" --name x >"$T/stdout"
	cairnd_stop e
}

that_a_folder_of_other_things_is_not_given_away() {
	mkdir "$T/home"
	echo x >"$T/home/letter"
	cairnd_config f "store.path=$T/home"
	assert_fails "holds other things than a store" timeout 20 "$CAIRND" -c "$T/d/f/cairnd.ini"
	assert_eq "$(stat -c %U "$T/home" "$T/home/letter" | sort -u)" root "owner of the folder"
}

that_a_key_that_only_root_reads_is_seen_nowhere() {
	local p
	SECRETS+=("$(head -c 64 /dev/urandom | base64 -w0)" environment-secret-4711)
	mkdir -p "$T/d/g"
	echo "${SECRETS[0]}" >"$T/d/g/key"
	chmod 600 "$T/d/g/key"
	cairnd_config g azure.account=nobody "azure.key_file=$T/d/g/key" fill.deadline=2
	AZURE_CLIENT_SECRET=${SECRETS[1]} cairnd_launch g
	D=g
	assert_fails . cairn export az://nobody/images/x
	refute grep -q "can't read the secret" "$T/d/g/log"
	cairn export "file://$T/img" --name x
	if [ -c /dev/fuse ] && [ -c /dev/loop-control ]; then cairn attach "file://$T/img" --name x; fi
	cairn status --json >"$T/d/g/status"
	curl -s --unix-socket "$T/d/g/c.sock" http://localhost/metrics >"$T/d/g/metrics"
	for p in $(pids_of_scratch) $(pgrep -P "$(supervisor_pid)"); do
		cat "/proc/$p/cmdline" >>"$T/d/g/cmdlines"
		if [ "$(cat "/proc/$p/comm")" = nbdfuse ]; then cat "/proc/$p/environ" >>"$T/d/g/environ"; fi
	done
	assert_no_secret "$T/d/g/"{log,status,metrics,cmdlines,environ}
	cairnd_stop
}

# descriptors_of PID: how many it holds, without the observer's, which is loaded when first asked for
descriptors_of() { find "/proc/$1/fd" -mindepth 1 ! -lname 'anon_inode:*bpf*' ! -lname 'anon_inode:btf' | wc -l; }

# It asks for each operation with names, ways and descriptors of its choosing, then sends what is no
# request, then floods; the supervisor grants nothing, goes on and can be stopped.
that_a_worker_in_other_hands_gets_nothing() {
	local s fds lines
	mkdir -p "$T/hostile"
	chown cairn "$T/hostile"
	cp "$BUILD/system/hostile_worker.so" "$T/hostile.so"
	chmod 755 "$T/hostile.so"
	cairnd_config h
	LD_PRELOAD=$T/hostile.so CAIRN_HOSTILE=$T/hostile setsid "$CAIRND" -c "$T/d/h/cairnd.ini" >"$T/d/h/log" 2>&1 </dev/null &
	s=$!
	echo $s >"$T/d/h/pid"
	disown $s
	wait_until 20 test -s "$T/hostile/phase" # the first life has begun
	fds=$(descriptors_of "$s")
	wait_until 50 grep -q '^over' "$T/hostile/said" || fail "it did not get to its end: $(cat "$T/hostile/said")"
	note "the hostile worker: $(paste -sd';' "$T/hostile/said")"
	assert_eq "$(grep -vE '^(over|flooded.*|granted 0, refused over 500)$' "$T/hostile/said")" '' "what it got"
	assert_eq "$(grep -c '^granted 0, refused over 500$' "$T/hostile/said")" 1 "what was refused"
	pid_alive "$s" || fail "the supervisor is gone"
	assert_le "$(descriptors_of "$s")" $((fds + 4)) "descriptors of the supervisor"
	assert_eq "$(loops_of_scratch)$(mounts_of_scratch)" '' "devices and mounts that it got"
	assert_eq "$(find "$T/d/h/run" -path '*attach/*')" '' "folders that it got"
	lines=$(wc -l <"$T/d/h/log")
	assert_le "$lines" 400 "lines that it had the supervisor write"
	assert_eq "$(grep -c 'sent what is no request' "$T/d/h/log")" 3 "records that ended a worker"
	grep -q 'takes no reply' "$T/d/h/log"
	refute grep -q '^level=error' "$T/d/h/log"
	cairnd_stop h
}

that_the_unit_is_hardened() {
	need_tool systemd-analyze
	sed "s|@sbindir@|$BUILD|" "$ROOT/deploy/systemd/cairnd.service" >"$T/cairnd.service"
	note "$(timeout 60 systemd-analyze security --offline=yes --no-pager "$T/cairnd.service" | grep -a 'Overall exposure')"
	refute grep -qE 'CAP_(DAC_OVERRIDE|FOWNER|IPC_LOCK|NET_RAW|SYS_RESOURCE|MKNOD)' <(grep ^CapabilityBoundingSet "$T/cairnd.service")
}

run_tests
