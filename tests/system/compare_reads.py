#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# compare_reads.py DEVICE IMAGE REPORT STOP: reads DEVICE at random places past the page cache, compares
# each read with IMAGE, and goes on until the file STOP is there. REPORT holds, at any moment,
# "reads errors wrong longest_ms". It ends by itself after two minutes.
import mmap
import os
import random
import sys
import time

device, image, report, stop = sys.argv[1:]
wanted = open(image, "rb").read()
wanted += bytes(-len(wanted) % 4096)
fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
room = mmap.mmap(-1, 256 << 10)
reads = errors = wrong = 0
longest = 0.0
end = time.monotonic() + 120
while not os.path.exists(stop) and time.monotonic() < end:
    size = random.choice((4, 16, 64, 256)) << 10
    offset = random.randrange(0, len(wanted) // 4096) * 4096
    size = min(size, len(wanted) - offset)
    began = time.monotonic()
    try:
        got = os.preadv(fd, [memoryview(room)[:size]], offset)
        if room[:got] != wanted[offset : offset + size]:
            wrong += 1
    except OSError as e:
        print(f"read of {size} at {offset}: {e}", flush=True)
        errors += 1
        time.sleep(0.05)
    reads += 1
    longest = max(longest, (time.monotonic() - began) * 1000)
    with open(report + ".new", "w") as f:
        f.write(f"{reads} {errors} {wrong} {longest:.0f}\n")
    os.rename(report + ".new", report)
