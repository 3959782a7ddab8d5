#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The images that a bench reads, the same on every machine, kept in build/bench/images.

  random-1024.img   1 GiB; no block is zero or like another
  large-1024.img    64 GiB that are that file 64 times, which only the origin knows how to serve

Each is sealed: tree and manifest lie beside it. By hand: tests/bench/images.py makes them and
prints the command of an origin that serves them.
"""
import os
import random
import shlex
import subprocess

import servers

MIB = int(os.environ.get("IMAGE_MIB", 1024))
LARGE = 64 << 30
FOLDER = os.path.join(servers.TOOLS, "images")
RANDOM = os.path.join(FOLDER, f"random-{MIB}.img")
LARGE_NAME = f"large-{MIB}.img"


def make_random():
    if os.path.exists(RANDOM) and os.path.getsize(RANDOM) == MIB << 20:
        return
    source = random.Random(20240917)
    with open(RANDOM + ".part", "wb") as f:
        for _ in range(MIB):
            f.write(source.randbytes(1 << 20))
    os.rename(RANDOM + ".part", RANDOM)


def seal(name, size, path):
    """@name is the file at @path, again and again until there are @size bytes."""
    manifest = os.path.join(FOLDER, f"{name}.cairn.json")
    if os.path.exists(manifest) and os.path.getmtime(manifest) >= os.path.getmtime(path):
        return
    subprocess.run([os.path.join(servers.TOOLS, "sealtile"), FOLDER, name, str(size),
                    os.path.basename(path)], stdout=subprocess.DEVNULL, check=True, timeout=120)


def make():
    os.makedirs(FOLDER, exist_ok=True)
    make_random()
    seal(os.path.basename(RANDOM), MIB << 20, RANDOM)
    seal(LARGE_NAME, LARGE, RANDOM)


def origin_options():
    return ["--tile", f"{LARGE_NAME}={LARGE}:{os.path.basename(RANDOM)}"]


if __name__ == "__main__":
    make()
    print(shlex.join([os.path.join(servers.TOOLS, "origin"), *origin_options(), FOLDER]))
