#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# What deploy/ holds beside the package: the unit, users, folders and the example configuration.
. "$(dirname "$0")/lib.sh"

# What `systemd-analyze security` may give the unit, in tenths. It was 5.7 when this was written (9.6
# without any hardening); what is left is in the unit, with its reasons.
EXPOSURE_MAX=58

sed "s|@sbindir@|$BUILD|" "$ROOT/deploy/systemd/cairnd.service" >"$T/cairnd.service"

that_the_example_configuration_is_what_cairnd_prints() {
	diff "$ROOT/deploy/cairnd.conf" <("$CAIRND" -c /dev/null --print-config) ||
		fail "make it anew: cairnd -c /dev/null --print-config > deploy/cairnd.conf"
	"$CAIRND" -c "$ROOT/deploy/cairnd.conf" --check-config
}

that_systemd_takes_the_unit_without_a_word() {
	need_tool systemd-analyze
	timeout 60 systemd-analyze verify --man=no "$T/cairnd.service" >"$T/said" 2>&1 || fail "$(cat "$T/said")"
	assert_eq "$(grep -F cairnd "$T/said" || true)" '' "what systemd-analyze verify says"
}

that_the_unit_is_no_more_exposed_than_it_must_be() {
	need_tool systemd-analyze
	timeout 60 systemd-analyze security --offline=yes --threshold=$EXPOSURE_MAX --no-pager "$T/cairnd.service" >"$T/said" 2>&1 ||
		fail "over $EXPOSURE_MAX tenths: $(grep -v ✓ "$T/said")"
	assert_says "$(cat "$T/said")" 'overall exposure'
}

# Each of these makes a mount namespace, and the next cairnd would not find what a killed one left.
that_the_unit_makes_no_mount_namespace() {
	local all
	all=$(grep -vE '^ *#' "$T/cairnd.service")
	refute grep -E '^(Private(Mounts|Tmp|Devices|Users|IPC)|Protect(System|Home|Proc|Kernel[A-Za-z]*|ControlGroups)|ProcSubset|MountFlags|Root(Directory|Image)|Bind[A-Za-z]*Paths|TemporaryFileSystem|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths|DynamicUser)=' <<<"$all"
}

# With what the unit leaves, and no more, the supervisor makes its worker another user, gives it the store
# and ends it.
that_the_capabilities_that_the_unit_leaves_are_enough_for_a_worker() {
	local cap bounding drop='' w
	need_root
	need_tool setpriv
	bounding=$(sed -n 's/^CapabilityBoundingSet=//p' "$T/cairnd.service" | tr '\n' ' ')
	for cap in $(setpriv --list-caps); do
		grep -qw "CAP_${cap^^}" <<<"$bounding" || drop+=,-$cap
	done
	cairnd_config a observe.enable=off
	cairnd_launch a setpriv --no-new-privs --bounding-set="${drop#,}" --inh-caps=-all
	w=$(worker_pid)
	assert_eq "$(stat -c %U "$T/d/a/store" "/proc/$w/task" | sort -u | xargs)" cairn "owner of the store"
	cairnd_stop
	pid_gone "$w" || fail "the worker outlived the supervisor"
}

# A supervisor that was killed finds its worker and its descriptors again, however often.
that_the_unit_keeps_what_a_killed_supervisor_leaves() {
	local all line
	all=$(grep -vE '^ *#' "$T/cairnd.service")
	# NotifyAccess=main, which the store needs, comes with Type=notify
	for line in Type=notify KillMode=process Restart=on-failure StartLimitIntervalSec=0 RuntimeDirectoryPreserve=yes; do
		grep -qx "$line" <<<"$all" || fail "the unit has no $line"
	done
	# two descriptors a connection, 8 connections a device at most by default, a thousand devices
	[ "$(sed -n 's/^FileDescriptorStoreMax=//p' <<<"$all")" -ge 16000 ] || fail "the store is too small"
	refute grep -E '^(FileDescriptorStorePreserve=no|NotifyAccess=none|ExecStopPost=)' <<<"$all"
}

that_users_and_folders_are_made_as_the_configuration_says() {
	local root=$T/root
	need_root
	need_tool systemd-sysusers
	need_tool systemd-tmpfiles
	mkdir -p "$root/etc" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\n' >"$root/etc/group"
	cp "$ROOT/deploy/systemd/sysusers.conf" "$root/usr/lib/sysusers.d/cairn.conf"
	cp "$ROOT/deploy/systemd/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/cairn.conf"
	systemd-sysusers --root="$root" cairn.conf
	grep -q "^$(sed -n 's/^control_group = //p' "$ROOT/deploy/cairnd.conf"):" "$root/etc/group"
	systemd-tmpfiles --root="$root" --create cairn.conf
	assert_eq "$(stat -c %a "$root$(sed -n 's/^runtime_dir = //p' "$ROOT/deploy/cairnd.conf")")" 755 "mode of runtime_dir"
	assert_eq "$(stat -c %a "$root$(sed -n 's/^path = //p' "$ROOT/deploy/cairnd.conf")")" 700 "mode of the store"
	assert_eq "$(stat -c %u "$root/var/lib/cairn")" "$(sed -n 's/^cairn:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/passwd")" "owner of the store"
}

that_make_install_puts_everything_in_its_place() {
	local f
	make -s -C "$ROOT" install DESTDIR="$T/dest" PREFIX=/usr >"$T/said" 2>&1 || fail "$(cat "$T/said")"
	for f in usr/bin/cairn usr/sbin/cairnd usr/lib/systemd/system/cairnd.service usr/lib/sysusers.d/cairn.conf \
		usr/lib/tmpfiles.d/cairn.conf usr/share/bash-completion/completions/cairn usr/share/man/man1/cairn-mount.1 \
		usr/share/man/man5/cairnd.conf.5 usr/share/man/man8/cairnd.8 etc/cairn/cairnd.conf; do
		[ -s "$T/dest/$f" ] || fail "make install made no $f"
	done
	grep -q '^ExecStart=/usr/sbin/cairnd' "$T/dest/usr/lib/systemd/system/cairnd.service"
	echo '# mine' >"$T/dest/etc/cairn/cairnd.conf"
	make -s -C "$ROOT" install DESTDIR="$T/dest" PREFIX=/usr >"$T/said" 2>&1 || fail "$(cat "$T/said")"
	assert_eq "$(cat "$T/dest/etc/cairn/cairnd.conf")" '# mine' "the operator's configuration after a second install"
}

run_tests
