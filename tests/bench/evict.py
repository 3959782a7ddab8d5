# SPDX-License-Identifier: Apache-2.0
"""Hits of traces under the daemon's policy of eviction and under others (tests/bench/evict)."""
import os
import subprocess

from servers import ROOT

SEEDS = 3


def run(lab):
    missed = 0
    for seed in range(1, SEEDS + 1):
        print("", flush=True)
        replay = subprocess.run([os.path.join(ROOT, "build/bench/replay"), "--seed", str(seed)])
        missed += replay.returncode != 0
    if missed:
        raise SystemExit("evict: a bound is missed")
