#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a large image of little disk: BLOB's bytes over and over, COUNT times, none of them zero.

  repeat_image.py BLOB COUNT      (BLOB's length: a multiple of 64 KiB)

Writes BLOB.tree and NAME.cairn.json for the image NAME = "repeated" beside BLOB. The tree and the
digest are computed here from docs/image-format.md alone, so this is a check of the format, too.
"""
import hashlib
import json
import os
import struct
import sys

BLOCK = 65536


def levels_of(leaves):
    """The levels, leaf level first; each a string of hashes."""
    levels = [leaves]
    while len(levels[-1]) > BLOCK:
        below = levels[-1]
        levels.append(b"".join(hashlib.sha256(below[i:i + BLOCK].ljust(BLOCK, b"\0")).digest()
                               for i in range(0, len(below), BLOCK)))
    return levels


def main(blob, count):
    leaves = []
    with open(blob, "rb") as f:
        while True:
            b = f.read(BLOCK)
            if not b:
                break
            leaves.append(hashlib.sha256(b).digest())
    one = len(leaves) * BLOCK
    length = one * count
    levels = levels_of(b"".join(leaves) * count)
    tree = b"".join(lv.ljust((len(lv) + BLOCK - 1) // BLOCK * BLOCK, b"\0") for lv in reversed(levels))
    root = hashlib.sha256(levels[-1].ljust(BLOCK, b"\0")).digest()
    descriptor = struct.pack("<BBBBIQ64s32s144s", 1, 1, 16, 0, 0, length, root, b"", b"")
    with open(blob + ".tree", "wb") as f:
        f.write(tree)
    name = os.path.basename(blob)
    manifest = {
        "format": "cairn-image", "version": 1, "min_reader": 1, "block_size": BLOCK, "hash": "sha256",
        "length": length,
        "digest": "sha256:" + hashlib.sha256(descriptor).hexdigest(),
        "root_hash": root.hex(),
        "blobs": [{"name": name, "etag": ""}, {"name": name + ".tree", "etag": ""}],
        "parts": [{"off": i * one, "len": one, "blob": 0, "blob_off": 0} for i in range(count)],
        "tree": {"length": len(tree), "parts": [{"off": 0, "len": len(tree), "blob": 1, "blob_off": 0}]},
    }
    with open(os.path.join(os.path.dirname(blob), "repeated.cairn.json"), "w") as f:
        json.dump(manifest, f)
    print(manifest["digest"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
