#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Identities: Blob with tokens instead of keys, against Azurite with OAuth over HTTPS and a stand-in
# for Entra ID and IMDS (entra.py). Azurite looks at a token's claims only and knows no roles: for what a
# missing role is told as, the stand-in is Blob, too.
# any event loop
. "$(dirname "$0")/lib.sh"

CLIENT=11111111-2222-3333-4444-555555555555
E=$T/entra

entra() { echo "$2" >"$E/$1"; } # entra SETTING VALUE
asked() { grep -cxF -- "$1" "$E/log" || true; }
tokens() { wc -l <"$E/tokens"; }
federated() { # a new federated token, in the file and at the endpoint
	openssl rand -hex 40 >"$T/federated"
	cat "$T/federated" >>"$T/assertions"
	cp "$T/federated" "$E/assertion.new"
	mv "$E/assertion.new" "$E/assertion"
}

# nobody NAME=VALUE... -- COMMAND...: with no credential but those given
nobody() {
	local vars=()
	while [ "$1" != -- ]; do vars+=("$1"); shift; done
	shift
	env -u AZURE_STORAGE_ACCOUNT -u AZURE_STORAGE_KEY AZURE_AUTHORITY_HOST="$HOST" \
		AZURE_POD_IDENTITY_AUTHORITY_HOST="$HOST" "${vars[@]}" "$@"
}
workload=(AZURE_TENANT_ID=contoso AZURE_CLIENT_ID=$CLIENT "AZURE_FEDERATED_TOKEN_FILE=$T/federated")
application=(AZURE_TENANT_ID=contoso AZURE_CLIENT_ID=$CLIENT)

cli() { timeout -k 5 60 "$CAIRN" --socket "$T/d/$D/c.sock" "$@"; }

# daemon NAME [SECTION.KEY=VALUE...] with the environment it is called in, but for keys
daemon() {
	local name=$1
	cairnd_config "$@" azure.account= azure.key_file= origin.ca_file="$T/ca.pem"
	AZURE_AUTHORITY_HOST=$HOST AZURE_POD_IDENTITY_AUTHORITY_HOST=${IMDS:-$HOST} cairnd_launch "$name"
}

good_again() {
	entra mode good
	entra life 3600
	entra audience https://storage.azure.com/
	federated
}

that_the_cli_pushes_seals_inspects_and_verifies_with_a_client_secret() {
	good_again
	local who=("${application[@]}" "AZURE_CLIENT_SECRET=$(cat "$E/secret")") before
	before=$(asked environment)
	nobody "${who[@]}" -- "$CAIRN" image push "$T/img" "$U/pushed"
	nobody "${who[@]}" -- "$CAIRN" image inspect "$U/pushed" >"$T/inspected" 2>"$T/inspected.err"
	assert_says "$(cat "$T/inspected")" 'sha256'
	assert_eq "$(cat "$T/inspected.err")" "" "what inspect said beside its output"
	nobody "${who[@]}" -- "$CAIRN" image verify "$U/pushed"
	"$AZ" put images/raw "$T/img"
	nobody "${who[@]}" -- "$CAIRN" image seal "$U/raw"
	nobody "${who[@]}" -- "$CAIRN" image verify "$U/raw"
	assert_eq $(($(asked environment) - before)) 5 "tokens fetched by five commands"
}

that_a_managed_identity_exports_an_image() {
	good_again
	daemon managed
	D=managed
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le 1 "$(asked 'imds -')" "tokens asked of IMDS"
	cairnd_stop
}

that_a_user_assigned_identity_is_named_in_the_configuration() {
	good_again
	daemon assigned azure.identity=managed azure.client_id=$CLIENT
	D=assigned
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	assert_le 1 "$(asked "imds $CLIENT")" "tokens asked for that identity"
	cairnd_stop
}

# Tokens live six seconds and are renewed after three; the federated token changes all the while.
that_an_image_is_read_whole_while_tokens_and_their_file_rotate() {
	good_again
	entra life 6
	local before i at uri start=$SECONDS
	before=$(asked workload)
	export "${workload[@]}"
	daemon rotate fill.readahead=0
	D=rotate
	uri=$(uri "$U/img" --name img)
	for i in $(seq 0 11); do
		at=$((i * (4 << 20)))
		nbd_read "$uri" $at 65536 >"$T/piece"
		cmp "$T/piece" <(tail -c +$((at + 1)) "$T/img" | head -c 65536)
		federated
		sleep 1
	done
	assert_image_equals "$uri" "$T/img"
	assert_le 4 $(($(asked workload) - before)) "tokens fetched in the run, at least"
	assert_le $(($(asked workload) - before)) $(((SECONDS - start) / 3 + 2)) "tokens fetched in the run, at most"
	assert_eq "$(status .counters.read_errors)" 0 "reads that failed"
	cairnd_stop
}

that_the_old_token_serves_while_no_other_is_to_be_had_and_reads_wait_after_its_end() {
	good_again
	entra life 12
	export "${workload[@]}"
	daemon lasting fill.readahead=0
	D=lasting
	local uri later
	uri=$(uri "$U/img" --name img)
	nbd_read "$uri" 0 4096 >/dev/null
	entra mode refuse
	sleep 6.5
	nbd_read "$uri" $((8 << 20)) 4096 >/dev/null # begins a renewal, which fails
	wait_until 5 grep -q 'no token.*old_serves=yes' "$T/d/lasting/log"
	nbd_read "$uri" $((16 << 20)) 4096 >/dev/null
	sleep 6
	(sleep 3; entra mode good) &
	later=$!
	nbd_read "$uri" $((24 << 20)) 4096 >"$T/piece" # waits for a token, which comes before its deadline
	wait $later
	cmp "$T/piece" <(tail -c +$(((24 << 20) + 1)) "$T/img" | head -c 4096)
	cairnd_stop
}

that_a_token_that_blob_does_not_take_is_said_with_whose_it_is() {
	good_again
	entra audience https://management.azure.com/
	export "${workload[@]}"
	daemon audience
	D=audience
	local before
	before=$(tokens)
	assert_fails 'access refused \(403 AuthenticationFailed\)' cairn export "$U/img" --name img
	assert_says "$SAID" "client id $CLIENT"
	assert_says "$SAID" 'Invalid token audience'
	echo "$SAID" >>"$T/said"
	assert_fails 'access refused' cairn export "$U/img" --name img
	assert_le $(($(tokens) - before)) 2 "tokens fetched for what no token helps"
	cairnd_stop
}

that_an_identity_without_rights_on_the_container_is_told_the_role_it_lacks() {
	good_again
	daemon norole azure.client_id=$CLIENT azure.account=devstoreaccount1
	D=norole
	local before
	before=$(tokens)
	assert_fails 'access refused \(403 AuthorizationPermissionMismatch\)' \
		cairn export "https://127.0.0.1:$(cat "$E/blob_port")/devstoreaccount1/secretbox/img" --name img
	assert_says "$SAID" "the identity \(client id $CLIENT, object id 00000000-aaaa-bbbb-cccc-000000000000\)"
	assert_says "$SAID" 'container secretbox of account devstoreaccount1: assign it Storage Blob Data Reader'
	assert_eq $(($(tokens) - before)) 1 "tokens fetched for what no token helps"
	echo "$SAID" >>"$T/said"
	cairnd_stop
}

that_a_metadata_service_that_hangs_is_said_within_the_deadline() {
	good_again
	entra mode hang
	daemon hang fill.deadline=5
	D=hang
	local start=$SECONDS
	assert_fails 'no token for Blob' cairn export "$U/img" --name img
	assert_le $((SECONDS - start)) 15 "seconds until it was said"
	echo "$SAID" >>"$T/said"
	cairnd_stop
}

that_a_token_file_that_is_missing_or_empty_is_said_with_its_name() {
	good_again
	export "${workload[@]}" AZURE_FEDERATED_TOKEN_FILE="$T/nosuchfile"
	daemon file
	D=file
	assert_fails "workload identity: the token file $T/nosuchfile can't be read" cairn export "$U/img" --name img
	assert_says "$SAID" 'environment: AZURE_CLIENT_SECRET is not set'
	assert_says "$SAID" 'managed identity: not tried'
	: >"$T/nosuchfile"
	sleep 2.1 # the pause after a failure
	assert_fails "$T/nosuchfile is empty" cairn export "$U/img" --name img
	cp "$T/federated" "$T/nosuchfile"
	sleep 4.1
	assert_image_equals "$(uri "$U/img" --name img)" "$T/img"
	rm -f "$T/nosuchfile"
	cairnd_stop
}

that_every_step_that_fails_is_named_in_one_text() {
	good_again
	IMDS=http://127.0.0.1:1 daemon none
	D=none
	assert_fails 'no key and no SAS is set; environment: AZURE_TENANT_ID is not set; workload identity: AZURE_FEDERATED_TOKEN_FILE is not set; managed identity: no metadata service answers at http://127.0.0.1:1' \
		cairn export "$U/img" --name img
	cairnd_stop
}

that_a_wrong_client_secret_is_said_in_entras_words() {
	good_again
	local secret
	secret=$(openssl rand -hex 20)
	echo "$secret" >>"$T/assertions"
	assert_fails 'AADSTS7000215: Invalid client secret provided' \
		nobody "${application[@]}" AZURE_CLIENT_SECRET="$secret" -- "$CAIRN" image inspect "$U/img"
	echo "$SAID" >>"$T/said"
}

that_an_identity_is_off_when_the_configuration_says_so() {
	good_again
	daemon off azure.identity=off
	D=off
	assert_fails 'no credential for account' cairn export "$U/img" --name img
	cairnd_stop
}

that_no_token_and_no_secret_is_in_a_log_an_error_or_status() {
	good_again
	daemon last
	D=last
	uri "$U/img" --name img >/dev/null
	status . >"$T/shown"
	cairnd_stop
	local s
	assert_le 12 "$(tokens)" "tokens handed out"
	while read -r s; do SECRETS+=("$s" "${s##*.}"); done <"$E/tokens"
	while read -r s; do SECRETS+=("$s"); done <"$T/assertions"
	SECRETS+=("$(cat "$E/secret")")
	[ -s "$T/said" ] || fail "earlier tests left nothing to look at"
	assert_no_secret "$T"/d/*/log "$T/said" "$T/shown" "$T/inspected" "$T/inspected.err"
}

make_certificates() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=cairn test CA" \
		-keyout "$T/ca.key" -out "$T/ca.pem" 2>/dev/null
	openssl req -newkey rsa:2048 -nodes -subj "/CN=127.0.0.1" -keyout "$T/tls.key" -out "$T/tls.csr" 2>/dev/null
	openssl x509 -req -in "$T/tls.csr" -CA "$T/ca.pem" -CAkey "$T/ca.key" -CAcreateserial -days 2 \
		-extfile <(echo subjectAltName=IP:127.0.0.1) -out "$T/tls.pem" 2>/dev/null
}

entra_start() {
	mkdir -p "$E"
	: >"$E/tokens"
	: >"$E/log"
	openssl rand -hex 20 >"$E/secret"
	good_again
	setsid python3 "$ROOT/tests/system/entra.py" "$E" "$T/tls.pem" "$T/tls.key" >"$E/out" 2>&1 </dev/null &
	wait_until 20 test -s "$E/port" || { cat "$E/out"; exit 1; }
	HOST=http://127.0.0.1:$(cat "$E/port")
}

make_certificates
export SSL_CERT_FILE=$T/ca.pem
AZURITE_EXTRA=(--oauth basic --cert "$T/tls.pem" --key "$T/tls.key")
azurite_start
entra_start
random_file "$T/img" $((52 << 20))
cairn image push "$T/img" "$U/img"
run_tests
