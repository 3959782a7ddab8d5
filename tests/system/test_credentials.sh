#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Credentials: every way to give one works, each wrong one is a clear error, and no secret of any
# kind is seen in a log, an error text, status, metrics or another process's view of our arguments.
# any event loop
. "$(dirname "$0")/lib.sh"

# Runs the CLI with no credential but the ones given: bare NAME=VALUE... -- COMMAND...
bare() {
	local vars=()
	while [ "$1" != -- ]; do vars+=("$1"); shift; done
	shift
	timeout -k 5 "${LIMIT:-120}" env -u AZURE_STORAGE_ACCOUNT -u AZURE_STORAGE_KEY -u AZURE_STORAGE_SAS_TOKEN \
		-u AZURE_STORAGE_CONNECTION_STRING "${vars[@]}" "$CAIRN" --socket "$T/d/$D/c.sock" "$@"
}

new_sas() { # ARGS...: makes a SAS and remembers its signature as a secret, as sent and decoded
	"$AZ" sas "$@" >"$T/sas"
	sed 's/.*sig=//;s/&.*//' "$T/sas" >>"$T/sigs"
	python3 -c 'import sys, urllib.parse; print(urllib.parse.unquote(sys.stdin.read().strip()))' <"$T/sas" |
		sed 's/.*sig=//;s/&.*//' >>"$T/sigs"
	cat "$T/sas"
}

wrong_key() { head -c 64 /dev/urandom | base64 -w0; }

that_an_account_and_key_in_the_environment_work() {
	bare AZURE_STORAGE_ACCOUNT="$AZURE_STORAGE_ACCOUNT" AZURE_STORAGE_KEY="$AZURE_STORAGE_KEY" -- \
		image inspect "$U/img"
}

that_a_connection_string_in_the_environment_works() {
	bare AZURE_STORAGE_CONNECTION_STRING="DefaultEndpointsProtocol=http;AccountName=$AZURE_STORAGE_ACCOUNT;AccountKey=$AZURE_STORAGE_KEY;BlobEndpoint=$AZURITE_URL/$AZURE_STORAGE_ACCOUNT;" \
		-- image inspect "$U/img"
}

that_a_connection_string_says_where_an_az_url_is() {
	bare AZURE_STORAGE_CONNECTION_STRING="DefaultEndpointsProtocol=http;AccountName=$AZURE_STORAGE_ACCOUNT;AccountKey=$AZURE_STORAGE_KEY;BlobEndpoint=$AZURITE_URL/$AZURE_STORAGE_ACCOUNT;" \
		-- image inspect "az://$AZURE_STORAGE_ACCOUNT/images/img"
}

that_a_sas_in_the_environment_works() {
	bare AZURE_STORAGE_ACCOUNT="$AZURE_STORAGE_ACCOUNT" AZURE_STORAGE_SAS_TOKEN="$(new_sas images)" -- \
		image inspect "$U/img"
}

that_a_sas_in_the_url_works() { bare -- image inspect "$U/img?$(new_sas images)"; }

that_a_sas_in_the_url_attaches_and_serves() {
	cairnd_start nokey azure.account= azure.key_file=
	D=nokey
	assert_image_equals "$(uri "$U/img?$(new_sas images)" --name img)" "$T/img"
	status . >"$T/shown.sas"
	cairnd_stop
}

that_a_daemon_reads_its_sas_from_a_file() {
	new_sas images >"$T/sas.file"
	cairnd_start sasfile azure.key_file= azure.sas_token_file="$T/sas.file"
	D=sasfile
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

that_a_daemon_reads_its_connection_string_from_a_file() {
	echo "DefaultEndpointsProtocol=http;AccountName=$AZURE_STORAGE_ACCOUNT;AccountKey=$AZURE_STORAGE_KEY;BlobEndpoint=$AZURITE_URL/$AZURE_STORAGE_ACCOUNT;" >"$T/cs"
	cairnd_start csfile azure.account= azure.key_file= azure.connection_string_file="$T/cs"
	D=csfile
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	cairnd_stop
}

that_a_push_with_a_sas_that_may_write_works() {
	bare -- image push "$T/small" "$U/pushed?$(new_sas images racwl)"
	cairn image verify "$U/pushed"
}

that_a_wrong_key_is_said_with_the_remedy() {
	local key
	key=$(wrong_key)
	echo "$key" >>"$T/sigs"
	assert_fails '(key|credential|authoriz|authentic|refused|denied|403)' \
		bare AZURE_STORAGE_ACCOUNT="$AZURE_STORAGE_ACCOUNT" AZURE_STORAGE_KEY="$key" -- image inspect "$U/img"
	assert_says "$SAID" 'AZURE_STORAGE|key|role'
	assert_says "$SAID" 'images|img'
	echo "$SAID" >>"$T/said"
}

that_a_key_that_is_not_base64_is_said() {
	assert_fails 'base64|key' \
		bare AZURE_STORAGE_ACCOUNT="$AZURE_STORAGE_ACCOUNT" AZURE_STORAGE_KEY='not/a*key' -- image inspect "$U/img"
	refute grep -qF 'not/a*key' <<<"$SAID"
}

that_no_credential_at_all_is_said_with_the_remedy() {
	assert_fails 'AZURE_STORAGE|SAS|credential' bare -- image inspect "$U/img"
	echo "$SAID" >>"$T/said"
}

that_an_expired_sas_is_said_with_the_remedy() {
	assert_fails 'SAS|expired' bare -- image inspect "$U/img?$(new_sas images r -600)"
	assert_says "$SAID" 'expire'
	echo "$SAID" >>"$T/said"
}

that_an_expired_sas_at_attach_is_said_by_the_daemon() {
	cairnd_start expired azure.account= azure.key_file=
	D=expired
	assert_fails 'SAS|expired' cairn export "$U/img?$(new_sas images r -600)" --name old
	echo "$SAID" >>"$T/said"
	cairnd_stop
}

that_a_daemon_with_a_wrong_key_says_so() {
	wrong_key >"$T/wrongkey"
	cat "$T/wrongkey" >>"$T/sigs"
	cairnd_start wrongkey azure.key_file="$T/wrongkey"
	D=wrongkey
	assert_fails 'key|credential|authoriz|authentic|403' cairn export "$U/img" --name img
	assert_says "$SAID" 'img'
	echo "$SAID" >>"$T/said"
	cairnd_stop
}

that_a_missing_container_is_named() {
	assert_fails 'container' cairn image inspect "$AZURITE_URL/$AZURE_STORAGE_ACCOUNT/nosuchcontainer/img"
	assert_says "$SAID" 'nosuchcontainer'
	assert_fails 'container' cairn image push "$T/small" "$AZURITE_URL/$AZURE_STORAGE_ACCOUNT/nosuchcontainer/img"
	assert_says "$SAID" 'nosuchcontainer'
}

that_a_missing_blob_is_named() {
	assert_fails 'nosuchblob' cairn image inspect "$U/nosuchblob"
	assert_fails 'nosuchblob' cairn export "$U/nosuchblob"
	assert_says "$SAID" 'not found|no such|does not exist|there is no'
}

that_a_url_of_no_known_form_is_said_with_the_forms() {
	assert_fails 'az://' cairn image inspect "s3://bucket/img"
	assert_fails 'az://' cairn export "ftp://host/img"
}

# A slow, large push, so that there is time to look at every process that is ours.
that_no_secret_is_seen_in_arguments_of_processes() {
	local pid seen=0 p sas
	sas=$(new_sas images racwl)
	random_file "$T/long" $((192 << 20))
	bare AZURE_STORAGE_ACCOUNT="$AZURE_STORAGE_ACCOUNT" AZURE_STORAGE_SAS_TOKEN="$sas" -- \
		image push "$T/long" "$U/long" >"$T/push.out" 2>&1 &
	pid=$!
	while pid_alive $pid; do
		for p in $(pids_of_scratch); do
			# ours only: what started it here (timeout, env) had the secrets as arguments
			case "$(cat "/proc/$p/comm" 2>/dev/null)" in
			cairn | cairnd | nbdfuse) ;;
			*) continue ;;
			esac
			tr '\0' ' ' 2>/dev/null <"/proc/$p/cmdline" >"$T/cmdline" || continue
			if grep -qE '/cairn .* push ' "$T/cmdline"; then seen=$((seen + 1)); fi
			cat "$T/cmdline" >>"$T/cmdlines"
		done
		sleep 0.1
	done
	wait $pid
	assert_le 2 "$seen" "times that the push was seen at work"
	rm -f "$T/long"
}

find_push() {
	local p
	for p in $(pids_of_scratch); do
		if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = cairn ]; then echo "$p"; return 0; fi
	done
	return 1
}

# A SAS typed into a URL is in the arguments of the program; it is wiped as soon as it is read.
that_a_sas_typed_into_a_url_is_wiped_from_the_arguments() {
	local pid
	random_file "$T/long" $((192 << 20))
	bare -- image push "$T/long" "$U/long2?$(new_sas images racwl)" >>"$T/push.out" 2>&1 &
	pid=$!
	wait_until 10 find_push || skip "the push was over before it was seen"
	sleep 0.3
	tr '\0' ' ' <"/proc/$(find_push)/cmdline" >"$T/cmdline.url"
	wait $pid
	rm -f "$T/long"
	assert_says "$(cat "$T/cmdline.url")" 'push'
	refute grep -qE 'sig=[A-Za-z0-9%+/]{8}' "$T/cmdline.url"
}

that_no_secret_is_in_logs_errors_status_or_metrics() {
	D=a
	curl -sS --max-time 10 "http://$(cat "$T/metrics_at")/metrics" >"$T/metrics"
	assert_says "$(cat "$T/metrics")" 'origin_get|served_bytes'
	status . >"$T/shown"
	local s
	while read -r s; do [ -n "$s" ] && SECRETS+=("$s"); done <"$T/sigs"
	assert_le 8 ${#SECRETS[@]} "secrets looked for, at least"
	[ -s "$T/said" ] && [ -s "$T/cmdlines" ] && [ -s "$T/shown.sas" ] || fail "earlier tests left nothing to look at"
	assert_no_secret "$T"/d/*/log "$T/said" "$T/shown" "$T/shown.sas" "$T/metrics" "$T/cmdlines" "$T/push.out" \
		"$T"/d/*/store/*/manifest
	refute grep -qE 'sig=[A-Za-z0-9%+/]{8}' "$T"/d/*/log "$T/said" "$T/shown" "$T/shown.sas" "$T/metrics" "$T/push.out"
}

azurite_start
: >"$T/sigs"
random_file "$T/small" 300000
random_file "$T/img" $((5 << 20))
cairn image push "$T/img" "$U/img"
echo "127.0.0.1:$(free_port)" >"$T/metrics_at"
cairnd_start a "daemon.metrics_listen=$(cat "$T/metrics_at")"
run_tests
