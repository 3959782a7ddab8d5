# SPDX-License-Identifier: Apache-2.0
"""The first file of an image of which this node has nothing: attach, mount, read.

Of the origin's log of requests, at +20 ms, counted is the longest chain in which each began after the
last bytes of the one before were sent: no more than so many can have waited for each other.
"""
import os
import time

import images
import mounts
import servers
import tables
from lab import ROUNDS, Book, failed, read_file

FAR_MS = 20
CELLS = ["erofs", "ext4"]
FIRST_FILE = "class000/000.jpg"


def longest_chain(log):
    """By their ends, which gives the longest."""
    chain, free_at = 0, 0
    for request in sorted((r for r in log if r["end"] is not None), key=lambda r: r["end"]):
        if request["start"] >= free_at:
            chain, free_at = chain + 1, request["end"]
    return chain


def measure(lab, book, fs, round_):
    url = f"{lab.origin.url}/files.{fs}"
    server = lab.start("cairn, no export", url)
    try:
        lab.origin.set(FAR_MS, 0)
        lab.origin.ask("__reset")
        begin = time.monotonic()
        point = mounts.mount(server, url, fs)
        read_file(os.path.join(point, FIRST_FILE))
        ms = (time.monotonic() - begin) * 1e3
        log = lab.origin.ask("__log")
    finally:
        lab.origin.set(0, 0)
        server.stop()
    book.add("cairn", fs, round_, {"requests": len(log), "chain": longest_chain(log), "ms": ms,
                                   "log": log})


def run(lab):
    book = Book("attach")
    if not mounts.ready("attach"):
        return
    for round_ in range(ROUNDS):
        for fs in CELLS:
            read_file(os.path.join(images.FOLDER, f"files.{fs}"))
            try:
                measure(lab, book, fs, round_)
            except servers.Unavailable as why:
                failed(book, "cairn", fs, round_, why)
    fields = {"GETs": "requests", "GETs one after the other, at most": "chain", "ms": "ms"}
    lines = [[text, *(tables.spread(tables.median_of(book.rows, "cairn", fs, field)[0])
                      for fs in CELLS)] for text, field in fields.items()]
    tables.print_grid("Attach, mount and first file, origin at +20 ms, nothing kept", CELLS, lines)
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
