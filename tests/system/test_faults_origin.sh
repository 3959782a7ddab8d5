#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# An origin that misbehaves in every way we know, while exports and a mounted device are read: the bytes are
# right or the read is refused, with a reason and in time; and when the fault is gone all is well again, at once.
# CAIRN_FAULTS_UNSCALED=1: five minutes of nothing are five minutes, at the default deadline.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../faults/lib.sh"

DEADLINE=8

# --- many cases at once -------------------------------------------------------------------------

# row CASE EXPECT REASON FAULT (tests/faults/reads says what they are)
row() {
	publish "$1"
	printf '%s\t' "$1" "$(uri "http://127.0.0.1:$HTTP/$1/img" --name "$1")" "$T/img.$1" "$2" "$3" >>"$T/table"
	echo "$4" >>"$T/table"
}

cases() {
	: >"$T/table"
	row reset_twice right '' 'kind=reset&times=2'
	row reset eio 'reset' 'kind=reset'
	row hang_up_twice right '' 'kind=hang_up&times=2'
	row hang_up eio 'empty reply' 'kind=hang_up'
	row slow_head right '' 'kind=slow_head&value=1.5'
	row slow_body right '' 'kind=slow_body&value=2'
	row stall_head eio 'answer|no byte' 'kind=stall_head'
	row stall_body eio 'answer|no byte' 'kind=stall_body'
	row no_body eio 'bytes remaining' 'kind=no_body'
	row short_body right '' 'kind=short_body&times=3'
	row short_always eio 'ended after|bytes remaining' 'kind=short_body'
	row reset_body right '' 'kind=reset_body&times=3'
	row long_body either '' 'kind=long_body'
	row wrong_range eio 'wrong Content-Range' 'kind=wrong_range'
	row whole eio 'whole|200|range' 'kind=whole'
	row http401 eio 'refuses access.*401' 'kind=status&value=401'
	row http403 eio 'refuses access.*403' 'kind=status&value=403'
	row http404 eio 'no such file.*404' 'kind=status&value=404'
	row if_match right '' 'kind=if_match'
	row http412 eio 'changed.*412' 'kind=status&value=412'
	row http429_twice right '' 'kind=status&value=429&times=2'
	row http429 eio '429' 'kind=status&value=429'
	row http429_wait right '' 'kind=status&value=429,Retry-After:%201&times=3'
	row http503_twice right '' 'kind=status&value=503&times=2'
	row http503 eio '503' 'kind=status&value=503'
	row http503_wait right '' 'kind=status&value=503,Retry-After:%201&times=3'
	row http503_hour eio '503.*asks to wait 3600 s' 'kind=status&value=503,Retry-After:%203600'
	row http500 eio '500' 'kind=status&value=500'
	row garbage eio 'HTTP' 'kind=garbage'
	row huge_head eio 'headers' 'kind=huge_head'
	row redirects eio 'redirect' 'kind=redirects'
	row flip_once right '' 'kind=flip&times=1'
	row flip eio 'does not match its hash' 'kind=flip'
	row tree_flip cold 'tree.*does not match' 'kind=flip&blob=tree'
	row tree_404 cold 'tree.*no such file' 'kind=status&value=404&blob=tree'
	row tree_stall cold 'tree|answer' 'kind=stall_head&blob=tree'
}

run_cases() {
	mkdir -p "$T/results"
	timeout 150 "$FAULTS/reads" "$CONTROL" "$CAIRN" "$T/d/$D/c.sock" "$DEADLINE" "$T/results" <"$T/table" || true
}
holds() {
	local c
	for c; do
		[ -s "$T/results/$c" ] || fail "$c did not end"
		grep -q '^ok' "$T/results/$c" || fail "$c: $(cat "$T/results/$c")"
		cat "$T/results/$c"
	done
}

that_resets_are_tried_again_until_the_deadline() { holds reset_twice reset; }
that_hang_ups_are_tried_again_until_the_deadline() { holds hang_up_twice hang_up; }
that_a_slow_head_and_a_slow_body_are_waited_for() { holds slow_head slow_body; }
that_an_answer_that_never_comes_is_eio_at_the_deadline() { holds stall_head; }
that_a_body_that_stalls_in_the_middle_is_eio_at_the_deadline() { holds stall_body; }
that_a_body_that_ends_early_is_gone_on_with_where_it_ended() { holds short_body reset_body; }
that_bodies_that_end_early_for_ever_are_eio() { holds no_body short_always; }
that_a_body_longer_than_asked_gives_no_byte_too_many() { holds long_body; }
that_a_range_of_other_bytes_is_eio() { holds wrong_range; }
that_the_whole_blob_in_place_of_a_range_is_eio() { holds whole; }
that_access_refused_in_mid_run_is_eio_and_says_so() { holds http401 http403; }
that_a_blob_that_is_gone_for_a_while_is_eio_and_comes_back() { holds http404; }
that_a_new_etag_with_the_same_bytes_costs_no_reader() { holds if_match; }
that_412_without_an_etag_is_eio() { holds http412; }
that_429_is_tried_again_with_and_without_retry_after() { holds http429_twice http429 http429_wait; }
that_503_is_tried_again_with_and_without_retry_after() { holds http503_twice http503 http503_wait http500; }
that_a_retry_after_beyond_the_deadline_is_eio_and_says_so() { holds http503_hour; }
that_garbage_and_endless_heads_are_eio() { holds garbage huge_head; }
that_endless_redirects_are_eio() { holds redirects; }
that_bytes_changed_once_under_one_etag_are_fetched_again() { holds flip_once; }
that_bytes_changed_under_one_etag_are_eio_and_never_shown() {
	holds flip
	assert_le 3 "$(status .counters.verify_failures)" "verification failures"
}
that_faults_of_the_tree_alone_are_eio_and_heal() { holds tree_flip tree_404 tree_stall; }
that_none_of_it_cost_a_worker() { assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"; }

# --- one at a time ------------------------------------------------------------------------------

that_one_of_two_blobs_gone_fails_its_own_reads_only() {
	publish two
	local data u
	data=$(basename "$T/pub/two/"*.data)
	split -b 4M -d -a 1 "$T/pub/two/$data" "$T/pub/two/$data."
	rm "$T/pub/two/$data"
	jq --arg d "$data" '.blobs = [{name: ($d + ".0"), etag: "x"}, {name: ($d + ".1"), etag: "x"}, .blobs[1]]
		| .parts = [{off: 0, len: 4194304, blob: 0, blob_off: 0},
			{off: 4194304, len: (.length - 4194304), blob: 1, blob_off: 0}]
		| .tree.parts[].blob = 2' "$T/pub/two/img.cairn.json" >"$T/two.json"
	cp "$T/two.json" "$T/pub/two/img.cairn.json"
	u=$(uri "http://127.0.0.1:$HTTP/two/img" --name two)
	mv "$T/pub/two/$data.1" "$T/elsewhere"
	assert_piece "$u" "$T/img.two" 0
	assert_read_is_eio "$u" $((5 << 20))
	assert_says "$(image two .last_error)" "$data.1.*no such file"
	assert_piece "$u" "$T/img.two" 65536
	mv "$T/elsewhere" "$T/pub/two/$data.1"
	assert_image_equals "$u" "$T/img.two"
}

that_a_certificate_of_a_stranger_is_eio_and_says_so() {
	local u
	publish tls
	publish tls2
	u=$(uri "https://127.0.0.1:$HTTPS/tls/img" --name tls)
	assert_piece "$u" "$T/img.tls" 0
	origin "certificate?cert=$T/stranger.pem&key=$T/stranger.key"
	assert_read_is_eio "$u" $((5 << 20))
	assert_says "$(image tls .last_error)" 'certificate is not trusted'
	assert_fails 'certificate is not trusted' cairn export "https://127.0.0.1:$HTTPS/tls2/img" --name tls2
	origin "certificate?cert=$T/good.pem&key=$T/good.key"
	assert_image_equals "$u" "$T/img.tls"
}

# A daemon with a file of hosts of its own.
that_a_name_that_is_not_found_is_said_and_comes_back() {
	need_root
	local u url=http://origin.test:$HTTP/name/img
	D=n
	publish name
	echo '127.0.0.1 localhost' >"$T/hosts"
	echo 'nameserver 127.0.0.1' >"$T/resolv.conf"
	cairnd_config n fill.deadline=3 fill.readahead=0
	# shellcheck disable=SC2016 # for the inner shell
	cairnd_launch n unshare -m sh -c 'mount --bind "$0/hosts" /etc/hosts &&
		mount --bind "$0/resolv.conf" "$(readlink -f /etc/resolv.conf)" && exec "$@"' "$T"
	assert_fails 'resolv.*origin.test' cairn export "$url" --name name
	echo '127.0.0.1 localhost origin.test' >"$T/hosts"
	u=$(uri "$url" --name name)
	echo '127.0.0.1 localhost' >"$T/hosts"
	assert_read_is_eio "$u" 0
	assert_says "$(image name .last_error)" 'resolv'
	echo '127.0.0.1 localhost origin.test' >"$T/hosts"
	assert_image_equals "$u" "$T/img.name"
	cairnd_stop
}

that_faults_of_a_manifest_refuse_the_export_or_are_tried_again() {
	publish man
	local url=http://127.0.0.1:$HTTP/man/img kind
	for kind in 'status&value=404' 'status&value=403' garbage huge_head 'status&value=412'; do
		origin "set?case=man&kind=$kind"
		assert_fails 'man/img' cairn export "$url" --name man
	done
	origin 'set?case=man&kind=flip'
	if cairn export "$url" --name man >/dev/null 2>"$T/err"; then fail "a manifest with a bit turned was taken"; fi
	assert_says "$(cat "$T/err")" 'man/img'
	for kind in 'status&value=503&times=2' 'reset&times=2' 'short_body&times=2' 'stall_body&times=0'; do
		origin "set?case=man&kind=$kind"
		assert_image_equals "$(uri "$url" --name man --refresh)" "$T/img.man"
		cairn detach man
	done
}

# --- nothing for long, and back, with a mount ---------------------------------------------------

# Every read of the mount and of the export is refused in time, for as long as it lasts. A program's read of a file
# may take a few deadlines: when its readahead failed the kernel asks once more for the page itself.
refused_for() { # SECONDS
	local end=$((SECONDS + $1)) start i=0
	while [ $SECONDS -lt $end ]; do
		start=$SECONDS
		i=$((i + 1))
		if timeout $((5 * LONG + 60)) cat "$MNT/file$i" >"$T/stdout" 2>"$T/err"; then fail "file$i was read of an origin that is away"; fi
		assert_says "$(cat "$T/err")" 'Input/output error'
		assert_le $((SECONDS - start)) $((5 * LONG + 30)) "seconds until EIO"
		LIMIT=$((LONG + 60)) assert_read_is_eio "$EXPORT" $((5 << 20))
	done
	echo "$i files refused"
}

that_an_origin_away_for_long_is_eio_in_time_and_all_is_well_when_it_is_back() {
	need_device
	need_filesystem erofs
	local outage=6 i
	LONG=2
	if [ -n "${CAIRN_FAULTS_UNSCALED-}" ]; then LONG=90 outage=300; fi
	D=m
	mkdir -p "$T/tree"
	for i in $(seq 40); do random_file "$T/tree/file$i" 70000 "file$i"; done
	publish_tree "$T/tree" mnt
	publish away
	cairnd_start m fill.deadline=$LONG fill.readahead=0
	cairn mount "http://127.0.0.1:$HTTP/mnt/img" "$MNT" --name mnt
	EXPORT=$(uri "http://127.0.0.1:$HTTP/away/img" --name away)
	cmp "$MNT/file40" "$T/tree/file40"
	origin "set?case=mnt&kind=stall_head"
	origin "set?case=away&kind=stall_head"
	refused_for $outage
	uri "http://127.0.0.1:$HTTP/away/img" --name again --refresh >/dev/null # by the manifest in the store
	origin "clear?case=mnt"
	origin "clear?case=away"
	origin 'listen?on=0'
	refused_for 1
	assert_says "$(image mnt .last_error)" 'connect|refused'
	cmp "$MNT/file40" "$T/tree/file40"
	origin 'listen?on=1'
	diff -r "$T/tree" "$MNT"
	assert_image_equals "$EXPORT" "$T/img.away"
	assert_eq "$(status .worker_restarts)" 0 "restarts of the worker"
	cairn umount "$MNT"
	cairnd_stop
}
# --- Azurite, killed and started again -----------------------------------------------------------

azurite_again() {
	: >"$T/azurite/log"
	AZURITE_ACCOUNTS="$AZURE_STORAGE_ACCOUNT:$AZURE_STORAGE_KEY" \
		setsid node "$AZURITE" --blobHost 127.0.0.1 --blobPort "${AZURITE_URL##*:}" --location "$T/azurite/data" \
		--silent --disableTelemetry >"$T/azurite/log" 2>&1 </dev/null &
	disown $!
	wait_until 60 grep -q 'successfully listens on' "$T/azurite/log" || fail "Azurite did not start again"
}

that_azurite_killed_is_eio_and_started_again_all_is_well() {
	local u pid
	azurite_start
	random_file "$T/az" "$LEN" az
	cairn image push --quiet "$T/az" "$U/az" >/dev/null
	wait_until 30 grep -q az.cairn.json "$T/azurite/data/__azurite_db_blob__.json" || fail "Azurite keeps no notes"
	D=z
	cairnd_start z fill.deadline=3 fill.readahead=0
	u=$(uri "$U/az" --name az)
	assert_piece "$u" "$T/az" 0
	pid=$(azurite_pid)
	kill -KILL "$pid"
	wait_until 10 pid_gone "$pid"
	assert_read_is_eio "$u" $((5 << 20))
	assert_says "$(image az .last_error)" 'connect|refused'
	assert_piece "$u" "$T/az" 0
	azurite_again
	assert_image_equals "$u" "$T/az"
	# and one that comes back before the deadline costs no reader
	cairnd_stop
	rm -rf "$T/d/z"
	cairnd_start z fill.deadline=60 fill.readahead=0
	u=$(uri "$U/az" --name az)
	assert_piece "$u" "$T/az" 0
	pid=$(azurite_pid)
	kill -KILL "$pid"
	wait_until 10 pid_gone "$pid"
	assert_piece "$u" "$T/az" $((4 << 20)) &
	sleep 0.5
	azurite_again
	wait $! || fail "a read did not outlast the restart"
	cairnd_stop
}

mkdir -p "$T/pub"
origin_start
cairnd_start a fill.deadline=$DEADLINE fill.readahead=0 image.manifest_max_age=0 "origin.ca_file=$T/good.pem"
cases
run_cases
run_tests
