#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# Workers that crash: what is told of it, and that one request can't have the worker die for ever.
. "$(dirname "$0")/lib.sh"

SHIM=$BUILD/faults/crash_at.so
AT=$((1 << 20))
EXTENT=$((4 << 20))
LEN=$((3 * EXTENT))

# crashing NAME VAR=VALUE...: a daemon whose worker crashes as tests/faults/crash_at.c says
crashing() {
	D=$1
	shift
	touch "$T/crash"
	cairnd_config "$D"
	cairnd_launch "$D" env LD_PRELOAD="$SHIM" CRASH_WHEN="$T/crash" "$@"
	U=$(uri "file://$T/img" --name img)
}

restarts() { status .worker_restarts; }
restarts_are() { [ "$(restarts)" = "$1" ]; }

# read_until_death OFFSET LENGTH: the read is answered, from elsewhere, or kills the worker
read_until_death() {
	local n before
	before=$(restarts)
	for n in 1 2 3 4 5; do
		nbd_read "$U" "$1" "$2" >/dev/null 2>&1 || true
		if [ "$(restarts)" -gt "$before" ]; then return; fi
	done
	fail "five reads of $2 bytes at $1 killed no worker"
}

# What a read that is refused says, and that it kills nobody.
assert_refused() {
	local n said before
	before=$(restarts)
	for n in 1 2 3; do
		said=$(nbd_read "$U" "$1" "$2" 2>&1 >"$T/stdout") && fail "read $n of $2 bytes at $1 was answered"
		assert_says "$said" EIO
		[ ! -s "$T/stdout" ] || fail "a refused read gave bytes"
	done
	assert_eq "$(restarts)" "$before" "restarts after reads that are refused"
}

assert_bytes() { # OFFSET LENGTH: as in the image
	nbd_read "$U" "$1" "$2" | cmp - <(tail -c "+$(($1 + 1))" "$T/img" | head -c "$2") || fail "$2 bytes at $1 are wrong"
}

metric() { curl -s --max-time 10 --unix-socket "$T/d/$D/c.sock" http://localhost/metrics | awk -v m="$1" '$1 == m { print $2 }'; }

that_a_read_that_killed_two_workers_fails_and_the_others_are_served() {
	crashing read CRASH_CALL=preadv2 CRASH_AT=$AT
	read_until_death $AT 4096
	assert_eq "$(status '.crashes.refused | length')" 0 "requests refused after one death"
	read_until_death $AT 4096
	assert_eq "$(restarts)" 2 "workers that died"
	assert_refused $AT 4096
	assert_bytes 0 $AT
	assert_bytes $((AT + 4096)) $((LEN - AT - 4096))
	assert_bytes $((AT - 4096)) 4096
	assert_eq "$(restarts)" 2 "workers that died, after the other reads"
	assert_le 3 "$(image img .read_errors)" "read errors of the image"
	assert_says "$(image img .last_error)" 'killed the worker twice'
}

that_status_says_what_killed_the_worker_and_what_is_refused() {
	local text all
	D=read
	text=$(cairn status)
	assert_says "$text" '^deaths 2 segv; the last:$'
	assert_says "$text" 'Segmentation fault, after [0-9.]+ s, version [0-9.]+, pid [0-9]+'
	assert_says "$text" "doing   read of 4096 bytes at $AT of img, image-[0-9a-f]{64} \(thread nbd\)"
	assert_says "$text" 'address 0xdead000'
	assert_says "$text" 'at .*cairnd\+0x[0-9a-f]+'
	assert_says "$text" '\| ts=.*msg="'
	assert_says "$text" "refused read of 4096 bytes at $AT of img, .* killed two workers \(segv\) and was answered with an error 3 times"
	assert_says "$text" 'cairn upgrade.*--clear-crashes'
	all=$(cairn status --crashes)
	assert_eq "$(grep -c 'Segmentation fault' <<<"$all")" 2 "deaths shown by --crashes"
	assert_says "$all" 'msg="serving"'
	assert_eq "$(cairn status --crashes --json | jq -r '.deaths | length')" 2 "deaths in JSON"
	assert_eq "$(status '.crashes.by_cause.segv')" 2 "deaths by cause"
	assert_eq "$(metric 'cairn_worker_deaths_total{cause="segv"}')" 2 "the metric of deaths"
	assert_eq "$(metric cairn_refused_reads_total)" 3 "the metric of refused reads"
	assert_eq "$(grep -c 'that killed the worker twice is answered' "$T/d/read/log")" 1 "lines in the log about it"
	assert_says "$(cat "$T/d/read/log")" "signal=11 .* doing=\"read of 4096 bytes at $AT of img"
}

that_a_refused_read_is_tried_again_when_the_operator_says_so() {
	D=read
	U=$(uri "file://$T/img" --name img)
	rm "$T/crash"
	assert_refused $AT 4096 # by itself it is not
	cairn status --clear-crashes
	assert_bytes $AT 4096
	assert_eq "$(status '.crashes.refused | length')" 0 "requests refused"
	assert_eq "$(restarts)" 2 "workers that died"
	cairnd_stop
}

that_only_the_very_range_is_refused_when_sending_it_kills() {
	crashing send CRASH_CALL=sendfile CRASH_AT=$AT CRASH_HOW=abort
	read_until_death $AT 65536
	read_until_death $AT 65536
	assert_refused $AT 65536
	assert_bytes $AT 4096
	assert_bytes $((AT + 65536)) 65536
	assert_eq "$(status '.crashes.by_cause.abort')" 2 "deaths by abort()"
	cairnd_stop
}

# The connection of a device outlives the worker, and with it the request in it. Its reply has begun, so the
# next worker goes on with it, and reads it another way; asked anew after two deaths, it is refused.
that_a_device_that_asks_again_by_itself_gets_an_error_in_the_end() {
	local n
	need_device
	crashing device CRASH_CALL=sendfile CRASH_AT=$AT
	DEV=$(cairn attach "file://$T/img" --name img --way nbdfuse)
	for n in 1 2 3 4 5 6 7; do
		dd_killer || break
		cmp "$T/got" <(tail -c "+$((AT + 1))" "$T/img" | head -c 65536) || fail "wrong bytes"
	done
	assert_le 2 "$n" "reads that the worker's death did not keep from being answered"
	wait_until 30 rest_of_device_is_right || fail "the rest of the device is not served: $(cairn status)"
	for n in 1 2 3; do refute dd_killer; done
	rest_of_device_is_right
	assert_eq "$(status '.crashes.by_cause.segv')" 2 "workers that died"
	cairn detach img
	cairnd_stop
}
dd_killer() { timeout 60 dd if="$DEV" of="$T/got" bs=64k skip=$((AT >> 16)) count=1 iflag=direct status=none; }
rest_of_device_is_right() {
	timeout 20 cmp <(dd if="$DEV" bs=64k count=$((AT >> 16)) iflag=direct status=none) <(head -c $AT "$T/img") &&
		timeout 20 cmp <(dd if="$DEV" bs=64k skip=$(((AT >> 16) + 1)) iflag=direct status=none) \
			<(tail -c "+$((AT + 65537))" "$T/img")
}

that_an_extent_whose_fill_killed_two_workers_is_not_filled_again() {
	crashing fill CRASH_CALL=pwrite CRASH_AT=$((EXTENT + 65536))
	read_until_death $((EXTENT + 65536)) 4096
	read_until_death $((EXTENT + 65536)) 4096
	wait_until 10 has_refused || fail "nothing is refused: $(cairn status)"
	assert_refused $((EXTENT + 65536)) 4096
	assert_refused $((EXTENT + EXTENT / 2)) 512
	assert_bytes 0 $EXTENT
	assert_bytes $((2 * EXTENT)) $EXTENT
	assert_says "$(cairn status)" "refused fill of $EXTENT bytes at $EXTENT of image-"
	assert_says "$(image img .last_error)" 'reading this extent killed the worker twice'
	cairnd_stop
}
has_refused() { [ "$(status '.crashes.refused | length')" = 1 ]; }

that_a_worker_killed_from_outside_ten_times_blames_nothing_and_comes_back_at_once() {
	local n w
	D=kill
	cairnd_start kill
	U=$(uri "file://$T/img" --name img)
	for n in 1 2 3 4 5 6 7 8 9 10; do
		nbd_read "$U" $AT 4096 >/dev/null 2>&1 &
		w=$(worker_pid)
		kill -"$([ "$n" = 8 ] && echo SEGV || echo KILL)" "$w"
		wait $! || true # it may have been in the middle
		wait_until 30 restarts_are "$n" || fail "no worker after $n deaths"
	done
	assert_bytes $AT 4096
	assert_eq "$(status '.crashes.refused | length')" 0 "requests refused"
	assert_eq "$(status '.crashes.by_cause | "\(.kill) \(.segv)"')" "9 1" "deaths by cause"
	assert_says "$(cairn status)" 'killed \(SIGKILL\); by whom is not known'
	assert_says "$(cairn status --crashes)" 'Segmentation fault, sent by another process'
	assert_eq "$(status .crashes.loop)" false "a crash loop"
	refute grep -q 'dies again and again' "$T/d/kill/log"
	cairnd_stop
}

calm_after_five_deaths() {
	wait_until 20 grep -q 'in_a_row=5 ' "$T/d/start/log"
	rm "$T/crash"
}

that_a_worker_that_crashes_at_its_start_is_tried_until_it_does_not() {
	mkdir -p "$T/d/start"
	calm_after_five_deaths &
	crashing start CRASH_START=1
	wait
	assert_le 5 "$(restarts)" "restarts"
	assert_eq "$(status .crashes.loop)" true "a crash loop"
	assert_says "$(cairn status)" 'crash loop: [5-9] deaths in a row'
	assert_eq "$(sed -nE 's/.*dies again and again.*next_start_ms=([0-9]+).*/\1/p' "$T/d/start/log" | head -n 3 | xargs)" \
		"200 400 800" "waits, in milliseconds"
	assert_bytes 0 4096
	cairnd_stop
}

# The texts of the record as it lies in memory.
record_texts() {
	local f
	for f in /proc/"$(supervisor_pid)"/fd/*; do
		[[ $(readlink "$f") != */memfd:cairn-crashes* ]] || strings "$f"
	done
}

that_no_secret_is_in_the_record() {
	local sas
	azurite_start
	head -c 65536 "$T/img" >"$T/small"
	"$AZ" put images/small "$T/small"
	sas=$("$AZ" sas images)
	SECRETS+=("$(sed 's/.*sig=//;s/&.*//' <<<"$sas")")
	D=secret
	cairnd_start secret azure.account= azure.key_file=
	cairn export "$U/small?$sas" --name small >/dev/null
	assert_fails 'no export' cairn detach "$U/other?$sas"
	record_texts >"$T/before"
	kill -SEGV "$(worker_pid)"
	wait_until 30 restarts_are 1
	record_texts >"$T/after"
	cairn status --crashes >"$T/said"
	# they did come there
	assert_says "$(cat "$T/before")" 'DELETE /v1/exports/\.\.'
	assert_says "$(cat "$T/before")" 'url=http.*/images/small\?.*sig='
	assert_says "$(cat "$T/said")" 'url=http.*/images/small\?.*sig='
	assert_no_secret "$T/before" "$T/after" "$T/said" "$T/d/secret/log"
	cairnd_stop
}

random_file "$T/img" $LEN
run_tests
