#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# The package: built, installed in a clean root, run there, removed and purged. The root has the Debian
# release and the mirrors of this machine; what the package depends on is in it from the start and the
# tar is kept in build/, so that a second run asks no mirror.
. "$(dirname "$0")/lib.sh"

DEB=$BUILD/deb/cairn.deb
R=$T/root
MIRROR_LIMIT=300 # seconds for the first run's packages; about 60 on two quiet cores

# One-line sources of this machine's Debian, none of its third parties' repositories.
debian_sources() {
	apt-get indextargets --format '$(ORIGIN) $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk '$1 == "Debian" { print "deb", $2, $3, $4 }' | sort -u
}

# Names of what the package needs and recommends, the first of alternatives.
wanted_packages() {
	dpkg-deb -f "$DEB" Depends Recommends | sed -E 's/^[A-Za-z-]+: //; s/\([^)]*\)//g; s/\|[^,]*//g; s/[[:space:]]//g' | paste -sd,
}

# Sets BASE, the base root's tar, which is made if need be. Proxies and the like are taken from this machine's apt.
base_root() {
	local codename key
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	debian_sources >"$T/sources"
	[ -s "$T/sources" ] || fail "apt on this machine knows no Debian mirror (apt-get indextargets)"
	key=$({ echo "$codename"; cat "$T/sources"; dpkg-deb -f "$DEB" Depends Recommends; } | sha256sum | cut -c 1-16)
	BASE=$BUILD/deb/root-$key.tar
	if [ ! -s "$BASE" ]; then
		rm -f "$BUILD"/deb/root-*.tar
		apt-config dump | grep -E '^Acquire::https?::' >"$T/apt.conf" || true
		echo 'Acquire::Retries "2"; Acquire::http::Timeout "20"; Acquire::https::Timeout "20";' >>"$T/apt.conf"
		timeout -k 10 "$MIRROR_LIMIT" mmdebstrap --quiet --variant=minbase --mode=root --format=tar --aptopt="$T/apt.conf" --dpkgopt=force-unsafe-io \
			--include="$(wanted_packages)" "$codename" "$BASE.new" "$T/sources" >"$T/mmdebstrap" 2>&1 || {
			rm -f "$BASE.new"
			tail -n 20 "$T/mmdebstrap"
			fail "no clean root could be made within $MIRROR_LIMIT s: is a Debian mirror reachable?"
		}
		mv "$BASE.new" "$BASE"
	fi
}

# Our folder is in the first word, so that the clean-up finds a daemon in the root as ours.
in_root() { timeout -k 5 60 chroot "$R" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -c 'exec -a "$0 '"$T"'" "$@"' "$1" "$@"; }

that_the_package_is_built() {
	local owner
	need_tool dpkg-buildpackage
	owner=$(stat -c %U "$ROOT")
	if [ "$(id -u)" = 0 ]; then
		timeout 170 runuser -u "$owner" -- make -s -C "$ROOT" deb
	else
		timeout 170 make -s -C "$ROOT" deb
	fi
	assert_eq "$(dpkg-deb -f "$DEB" Version)" "$(sed -n 's/^VERSION := //p' "$ROOT/Makefile")" "the package's version"
}

that_it_installs_in_a_clean_root() {
	need_root
	need_tool mmdebstrap
	mkdir -p "$R"
	base_root
	tar -C "$R" -xf "$BASE"
	mount -t proc proc "$R/proc"
	mount --bind /dev "$R/dev"
	cp "$DEB" "$R/cairn.deb"
	in_root dpkg -i /cairn.deb
	assert_eq "$(in_root dpkg-query -W -f '${db:Status-Abbrev}' cairn | xargs)" ii "dpkg's word on the package"
	assert_eq "$(in_root dpkg -V cairn)" '' "files that differ from the package's"
	: >"$T/installed"
}
installed() { [ -f "$T/installed" ] || skip "the package is not installed"; }

that_it_makes_the_user_and_the_folders() {
	installed
	grep -q '^cairn:.*/nologin$' "$R/etc/passwd"
	grep -q '^cairn:' "$R/etc/group"
	assert_eq "$(stat -c '%a %u' "$R/var/lib/cairn")" "700 $(awk -F: '$1 == "cairn" { print $3 }' "$R/etc/passwd")" "the store"
}

that_the_service_starts_at_boot() {
	installed
	[ -L "$R/etc/systemd/system/multi-user.target.wants/cairnd.service" ] || fail "the unit is not enabled"
	in_root systemd-analyze verify --man=no cairnd.service
}

that_the_programs_run_there() {
	installed
	assert_eq "$(in_root cairn --version)" "cairn $(dpkg-deb -f "$DEB" Version)" "cairn --version"
	assert_eq "$(in_root cairnd --check-config)" "/etc/cairn/cairnd.conf: ok" "cairnd --check-config"
	refute in_root sh -c 'ldd /usr/bin/cairn /usr/sbin/cairnd | grep "not found"'
}

that_manuals_and_completion_are_there() {
	local f
	installed
	make -s -C "$ROOT" man >/dev/null
	for f in "$BUILD"/man/*.[158]; do
		gzip -t "$R/usr/share/man/man${f##*.}/${f##*/}.gz"
	done
	assert_eq "$(in_root bash -c '. /usr/share/bash-completion/completions/cairn && complete -p cairn')" \
		'complete -F _cairn cairn' "the completion"
}

that_the_daemon_starts_and_serves_an_image_made_there() {
	installed
	mkdir -p "$T/d/a"
	in_root cairnd -c /etc/cairn/cairnd.conf >"$T/d/a/log" 2>&1 &
	wait_until 20 in_root cairn status || fail "cairnd did not start"
	mkdir -p "$R/srv/tree"
	cp -a "$R/etc/ssl" "$R/srv/tree/" 2>/dev/null || cp -a "$R/etc/apt" "$R/srv/tree/"
	in_root cairn image build /srv/tree /srv/image >"$T/digest"
	grep -q '^sha256:' "$T/digest"
	in_root cairn image push --quiet /srv/image file:///srv/published
	assert_eq "$(in_root cairn export file:///srv/published --name one)" 'nbd+unix:///one?socket=/run/cairn/nbd.sock' "the URI"
	assert_image_equals "nbd+unix:///one?socket=$R/run/cairn/nbd.sock" "$R/srv/image"
	assert_says "$(in_root cairn status)" '^one .* yes .*file:///srv/published'
}

that_a_member_of_the_group_may_ask() {
	installed
	assert_says "$(timeout 20 chroot --userspec=nobody:cairn "$R" cairn status)" '^one '
	refute timeout 20 chroot --userspec=nobody:nogroup "$R" cairn status
}

that_the_daemon_stops() {
	local pid
	installed
	for pid in $(pids_of_scratch); do
		if [ "$(cat "/proc/$pid/comm")" = cairnd ]; then kill -TERM "$pid"; wait_until 20 pid_gone "$pid"; fi
	done
	[ ! -e "$R/run/cairn/control.sock" ] || fail "the control socket is still there"
	[ -e "$R/var/lib/cairn/clean" ] || fail "the store has no mark of an orderly stop"
}

that_remove_leaves_settings_and_store() {
	installed
	echo secret >"$R/etc/cairn/key"
	in_root dpkg -r cairn
	[ ! -e "$R/usr/sbin/cairnd" ] || fail "cairnd is still there"
	[ -s "$R/etc/cairn/cairnd.conf" ] || fail "the settings are gone"
	[ -d "$R/var/lib/cairn/objects" ] || fail "the store is gone"
}

that_purge_leaves_nothing_but_what_it_names() {
	installed
	in_root dpkg -P cairn >"$T/said" 2>&1
	assert_says "$(cat "$T/said")" "/etc/cairn/key stays"
	assert_says "$(cat "$T/said")" "user and group 'cairn' stay"
	rm "$R/cairn.deb"
	assert_eq "$(cd "$R" && find . -xdev \( -path ./proc -o -path ./srv -o -path ./usr/share/zoneinfo \) -prune -o -name '*cairn*' -print | sort | xargs)" './etc/cairn' \
		"what purge left"
}

run_tests
