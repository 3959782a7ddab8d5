#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the guest's kernel down.
echo "ok - broken: it was well until then"
echo c >/proc/sysrq-trigger
