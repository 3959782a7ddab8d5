#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Hangs so that the guest's own time limit does not see it: its process is stopped too.
echo "ok - broken: it was well until then"
kill -STOP $PPID
sleep 1000
