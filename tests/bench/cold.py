# SPDX-License-Identifier: Apache-2.0
"""One sequential read of the image from a slow origin into an empty store."""
import os

import servers
import tables
from lab import COLD_SECS, IMAGE_MIB, ROUNDS, Book, compare_all, load, read_file, skip, turn_order

SERVERS = ["cairn", "nbdkit curl", "curl + cow 1M"]
CELLS = {  # delay in ms, bytes/s a connection
    "0 ms": (0, 0),
    "5 ms": (5, 0),
    "20 ms": (20, 0),
    "20 ms, 80 MB/s": (20, 80_000_000),
}


def measure(lab, book, name, cell, round_):
    """The server starts while the origin is fast: an attach is not what is measured here."""
    delay_ms, rate = CELLS[cell]
    lab.origin.set(0, 0)
    read_file(lab.image)
    server = lab.start(name)
    try:
        lab.origin.set(delay_ms, rate)
        lab.origin.ask("__reset")
        row = load(server, "once", 1 << 20, 4, 1, COLD_SECS)
        stats = lab.origin.ask("__stats")
    finally:
        lab.origin.set(0, 0)
        server.stop()
    if row.get("unique_bytes"):
        row["amplification"] = stats["body_bytes"] / row["unique_bytes"]
    book.add(name, cell, round_, {**row, "origin": stats})


def verified(lab, name):
    server = lab.start(name)
    try:
        compare_all(server, lab.image)
    finally:
        server.stop()


def run(lab):
    book = Book("cold")
    lab.origin.set(0, 0)
    for name in turn_order(SERVERS, 0):
        try:
            verified(lab, name)
        except servers.Unavailable as why:
            skip(name, why)
    for round_ in range(ROUNDS):
        for cell in CELLS:
            for name in turn_order(SERVERS, round_):
                try:
                    measure(lab, book, name, cell, round_)
                except servers.Unavailable as why:
                    skip(name, why)
    names = [n for n in SERVERS if any(r["server"] == n for r in book.rows)]
    cells = list(CELLS)
    title = f"Cold: {IMAGE_MIB} MiB in order, 1M QD4, at most {COLD_SECS:g} s"
    tables.print_medians(f"{title}: MB/s", book.rows, names, cells, "MBps")
    tables.print_medians("Cold: origin bytes / bytes needed", book.rows, names, cells,
                         "amplification")
    tables.print_ratios("Cold: ratio of speeds", book.rows, "cairn", names, cells, "MBps")
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
