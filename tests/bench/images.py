#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The images that a bench reads, the same on every machine, kept in build/bench/images.

  random-1024.img   1 GiB; no block is zero or like another
  large-1024.img    64 GiB that are that file 64 times, which only the origin knows how to serve
  files.erofs       8,000 files in 80 folders, log-normal sizes with a mean of 110 KiB, 902 MB
  files.ext4        the same files; both need programs that tests/setup installs

Each is sealed: tree and manifest lie beside it. By hand: tests/bench/images.py makes them and
prints the command of an origin that serves them.
"""
import math
import os
import random
import shlex
import shutil
import subprocess

import servers

MIB = int(os.environ.get("IMAGE_MIB", 1024))
LARGE = 64 << 30
FOLDER = os.path.join(servers.TOOLS, "images")
RANDOM = os.path.join(FOLDER, f"random-{MIB}.img")
FILES, MEAN = 8000, 110 << 10
LIST = os.path.join(FOLDER, "files.list")  # their names
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


def file_names():
    return [f"class{n // 100:03}/{n % 100:03}.jpg" for n in range(FILES)]


def make_tree(folder):
    """The same names, sizes and bytes each time."""
    source = random.Random(20240918)
    sigma = 0.5
    mu = math.log(MEAN) - sigma * sigma / 2
    for name in file_names():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = max(4096, int(source.lognormvariate(mu, sigma)))
        with open(path, "wb") as f:
            f.write(source.randbytes(size))


def make_files():
    """The images of files by `cairn image build`; a tree in a folder is needed only meanwhile."""
    wanted = [fs for fs in ("erofs", "ext4")
              if not os.path.exists(os.path.join(FOLDER, f"files.{fs}"))]
    tree = os.path.join(FOLDER, "tree")
    if wanted:
        shutil.rmtree(tree, ignore_errors=True)
        make_tree(tree)
    for fs in wanted:
        subprocess.run([servers.CAIRN, "image", "build", "-q", "--force", "--fs", fs, tree,
                        os.path.join(FOLDER, f"files.{fs}")], stdout=subprocess.DEVNULL,
                       check=True, timeout=300)
    shutil.rmtree(tree, ignore_errors=True)
    with open(LIST, "w") as f:
        f.writelines(f"{name}\n" for name in file_names())
    for fs in ("erofs", "ext4"):
        path = os.path.join(FOLDER, f"files.{fs}")
        seal(f"files.{fs}", os.path.getsize(path), path)


def origin_options():
    return ["--tile", f"{LARGE_NAME}={LARGE}:{os.path.basename(RANDOM)}"]


if __name__ == "__main__":
    make()
    make_files()
    print(shlex.join([os.path.join(servers.TOOLS, "origin"), *origin_options(), FOLDER]))
