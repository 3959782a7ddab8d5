# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A soak: readers of mounts, a device and an export compare every byte, while what a seed drew befalls the
# daemon. Sourced after tests/system/lib.sh, here and in guests (bash and coreutils; no python).
#
# The schedule - what, when, for how long - follows from the seed, the length and the list of kinds, and from
# nothing else. Whoever sources this sets
#   KINDS      what may befall: names of functions befall_NAME; twice in the list is twice as often
#   FAULTS_OF_ORIGIN   words for befall_origin_set
# and gives readers_of_soak, which prints HOW:READ:REFERENCE words for tests/soak/reader.c.
READER=$BUILD/soak/reader
SOAK_SECONDS=${CAIRN_SOAK_SECONDS:-60}
SOAK_SEED=${CAIRN_SOAK_SEED:-$((RANDOM * 32768 + RANDOM))}
BOUND_MS=${CAIRN_SOAK_BOUND_MS:-60000} # no read may take longer

# --- the schedule -------------------------------------------------------------------------------------

# roll N: to $ROLLED, 0..N-1, the next of the seed's numbers
roll() {
	RNG=$(((RNG * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff))
	ROLLED=$(((RNG >> 24) % $1))
}

# soak_schedule SEED SECONDS: lines "MS NAME [ARGUMENT]" in order; faults that last have a line for their end
soak_schedule() {
	local end=$(($2 * 1000 - 5000)) at=1500 kind until_origin=0 until_disk=0 lasts
	RNG=$1
	roll 7 # the first numbers of small seeds are alike
	while [ $at -lt $end ]; do
		roll ${#KINDS[@]}
		kind=${KINDS[ROLLED]}
		case "$kind" in
		origin)
			if [ $at -ge $until_origin ]; then
				roll ${#FAULTS_OF_ORIGIN[@]}
				echo "$at origin_set ${FAULTS_OF_ORIGIN[ROLLED]}"
				roll 3500
				until_origin=$((at + 500 + ROLLED))
				echo "$until_origin origin_clear"
			fi
			;;
		disk)
			if [ $at -ge $until_disk ]; then
				roll 4000
				until_disk=$((at + 500 + ROLLED))
				printf '%s\n' "$at disk_fill" "$until_disk disk_free"
			fi
			;;
		*)
			roll 2500
			lasts=$((200 + ROLLED))
			echo "$at $kind $lasts"
			;;
		esac
		roll 2500
		at=$((at + 250 + ROLLED))
	done | sort -s -n -k 1,1
}

# --- what befalls -------------------------------------------------------------------------------------

# Each takes how many milliseconds it lasts, where it lasts at all.
sleep_ms() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }

befall_worker_kill() {
	local w
	w=$(worker_pid) || return 0 # none at the moment
	kill -KILL "$w" 2>/dev/null || true
}

befall_worker_stop() {
	local w
	w=$(worker_pid) || return 0
	kill -STOP "$w" 2>/dev/null || true
	sleep_ms "$1"
	kill -CONT "$w" 2>/dev/null || true
}

# A worker that was just killed may have no successor yet, and then there is none to replace.
befall_upgrade() {
	wait_until 30 cairn status || fail "no worker answers"
	cairn upgrade >"$T/upgraded" 2>&1 || fail "upgrade: $(cat "$T/upgraded")"
}

# Not while no worker lives: a loop device's helper has one connection, and of two that die at once nobody is
# left who holds it.
befall_supervisor_kill() {
	local s
	wait_until 30 cairn status || fail "no worker answers"
	s=$(supervisor_pid)
	kill -KILL "$s"
	wait_until 10 pid_gone "$s" || fail "the supervisor survived SIGKILL"
	sleep_ms "$1"
	cairnd_launch "$D"
}

# Everything is read once, so that what was in the store has to go; beside the rest, since an origin that fails
# holds it up, and so the end of the failing. The server may hang up meanwhile.
befall_evict() {
	local name
	for name in $(timeout 30 "$CAIRN" --socket "$T/d/$D/c.sock" status --json 2>/dev/null | jq -r '.images[].name'); do
		timeout 20 nbdcopy "nbd+unix:///$name?socket=$T/d/$D/n.sock" null: >/dev/null 2>&1 &
		EVICTORS+=($!)
	done
}

befall_disk_fill() { head -c 1G /dev/zero >"$T/d/$D/store/ballast" 2>/dev/null || true; }
befall_disk_free() { rm -f "$T/d/$D/store/ballast"; }

# --- the run ------------------------------------------------------------------------------------------

now_ms() { echo $(($(date +%s%N) / 1000000)); }

soak_fail() {
	fail "seed $SOAK_SEED, $SOAK_SECONDS s: $* (again: CAIRN_SOAK_SEED=$SOAK_SEED CAIRN_SOAK_SECONDS=$SOAK_SECONDS; the last of what befell: $(tail -n 5 "$T/played" | tr '\n' ';'))"
}

readers_alive() { pid_alive "$READERS_PID" || soak_fail "the readers ended: $(cat "$T/readers.said")"; }

# reads bytes errors wrong redials longest_ms oldest_ms, by number
reader_says() { cut -d ' ' -f "$1" "$T/readers.report" 2>/dev/null || echo 0; }

readers_judge() {
	readers_alive
	[ "$(reader_says 3) $(reader_says 4)" = "0 0" ] || [ ! -s "$T/readers.report" ] ||
		soak_fail "reads that failed and wrong ones: $(cat "$T/readers.report")"
}

progress() {
	[ "$SOAK_SECONDS" -gt 120 ] || return 0
	if [ $(($1 / 60000)) -gt "$MINUTE" ]; then
		MINUTE=$(($1 / 60000))
		echo "# soak: minute $MINUTE, $(reader_says 1) reads compared, the longest $(reader_says 6) ms, the oldest in flight $(reader_says 7) ms; $(wc -l <"$T/played") events" >&3
	fi
}

soak_play() {
	local begun at name lasts now
	begun=$(now_ms)
	MINUTE=0 EVICTORS=()
	: >"$T/played"
	while read -r at name lasts; do
		while now=$(($(now_ms) - begun)) && [ $now -lt "$at" ]; do
			readers_judge
			sleep_ms $((at - now < 500 ? at - now : 500))
		done
		if [ $now -ge $((SOAK_SECONDS * 1500)) ]; then # a machine this slow gets no further
			befall_origin_clear
			befall_disk_free
			note "after $((now / 1000)) s at event $(wc -l <"$T/played") of $(wc -l <"$T/schedule")"
			break
		fi
		echo "$at $name $lasts" >>"$T/played"
		"befall_$name" $lasts
		progress "$at"
	done <"$T/schedule"
	while [ $(($(now_ms) - begun)) -lt $((SOAK_SECONDS * 1000)) ]; do
		readers_judge
		sleep 0.5
	done
}

readers_stop() {
	local rc=0
	touch "$T/readers.stop"
	wait_until $((BOUND_MS / 1000 + 15)) pid_gone "$READERS_PID" || soak_fail "the readers do not end"
	wait "$READERS_PID" || rc=$?
	[ $rc = 0 ] || soak_fail "$(cat "$T/readers.said")"
}

# Open descriptors by kind: sockets, and everything else. Kept connections to the origin come and go.
fds_of() { find "/proc/$1/fd" -type l ${2:+! -lname 'socket:*'} 2>/dev/null | wc -l; }
fds_by_kind() { find "/proc/$1/fd" -type l -printf '%l\n' 2>/dev/null | sed 's/[0-9]\{2,\}//g' | sort | uniq -c | sort -rn | tr '\n' ';'; }

# Processes of ours that sleep where no signal reaches them, seen three times in a second and a half.
stuck() {
	local p n
	for p in $(pids_of_scratch) $(worker_pid); do
		for n in 1 2 3; do
			grep -q '^State:.*D' "/proc/$p/status" 2>/dev/null || continue 2
			[ $n = 3 ] || sleep 0.7
		done
		echo "$p($(cat "/proc/$p/comm" 2>/dev/null))"
	done
}

# soak: the daemon $D runs, readers_of_soak can be opened
soak() {
	local words
	soak_schedule "$SOAK_SEED" "$SOAK_SECONDS" >"$T/schedule"
	note "seed $SOAK_SEED, $SOAK_SECONDS s, $(wc -l <"$T/schedule") events"
	mapfile -t words < <(readers_of_soak)
	"$READER" "$T/readers.stop" "$T/readers.report" "$SOAK_SEED" "$BOUND_MS" "${words[@]}" >"$T/readers.said" 2>&1 &
	READERS_PID=$!
	soak_play
	readers_stop
	wait "${EVICTORS[@]}" 2>/dev/null || true
	note "survived: $(awk '{ n[$2]++ } END { for (k in n) printf "%s %d, ", k, n[k] }' "$T/played" | sed 's/, $//')"
	note "readers: $(cat "$T/readers.said")"
	assert_le "$SOAK_SECONDS" "$(reader_says 1)" "reads compared, at least one a second"
	[ -z "$(stuck)" ] || soak_fail "stuck in the kernel: $(stuck)"
}

# soak_counts: descriptors of supervisor and worker that are no sockets, and that are
soak_counts() {
	local p
	for p in "$(supervisor_pid)" "$(worker_pid)"; do echo "$(fds_of "$p" others) $(($(fds_of "$p") - $(fds_of "$p" others)))"; done | xargs
}

# soak_leaves_nothing COUNTS: once all is detached; as before, but for connections to the origin that are kept
soak_leaves_nothing() {
	local before after
	assert_eq "$(status '.images | length')" 0 "exports left"
	read -ra before <<<"$1"
	read -ra after <<<"$(soak_counts)"
	note "descriptors and sockets before: supervisor ${before[*]:0:2}, worker ${before[*]:2:2}; after: ${after[*]:0:2}, ${after[*]:2:2}"
	note "the worker's memory: $(awk '/^VmRSS/ { print int($2 / 1024) " MiB" }' "/proc/$(worker_pid)/status")"
	assert_le "${after[0]}" $((before[0] + 4)) "descriptors of the supervisor ($(fds_by_kind "$(supervisor_pid)"))"
	assert_le "${after[1]}" $((before[1] + 2)) "sockets of the supervisor"
	assert_le "${after[2]}" $((before[2] + 4)) "descriptors of the worker ($(fds_by_kind "$(worker_pid)"))"
	assert_le "${after[3]}" $((before[3] + 72)) "sockets of the worker" # two for each connection that is kept: of 32, and the resolver's
}
