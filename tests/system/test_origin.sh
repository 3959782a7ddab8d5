#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The azure origin alone (origin_azurite.c, built with sanitizers) against Azurite, which checks
# signatures as Azure does.
. "$(dirname "$0")/lib.sh"

PROGRAM=$BUILD/system/origin_azurite.san
[ -x "$PROGRAM" ] || { echo "no $PROGRAM: run it through make system"; exit 1; }

# the emulator's own, public key: the program signs SAS with it
azurite_start 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
rc=0
env -u AZURE_STORAGE_ACCOUNT -u AZURE_STORAGE_KEY CAIRN_AZURITE_PORT="${AZURITE_URL##*:}" CMOCKA_MESSAGE_OUTPUT=STDOUT \
	timeout -k 5 300 "$PROGRAM" >"$T/lines" 2>&1 || rc=$?
sed -nE 's/^\[ +OK +\] (.*)/ok - origin: \1/p; s/^\[ +FAILED +\] ([a-z_0-9]+)$/not ok - origin: \1/p' "$T/lines" | tr _ ' ' | sort -u
if [ $rc != 0 ]; then
	sed 's/^/  /' "$T/lines"
	show_logs
fi
exit $rc
