# SPDX-License-Identifier: Apache-2.0
"""Reads of bytes that are in the page cache: what the server itself costs."""
import os

import servers
import tables
from lab import ROUNDS, SECS, Book, compare_all, load, read_into_cache, skip, turn_order

SERVERS = ["cairn", "nbdkit file", "nbd-server", "qemu-nbd", "ref pread", "ref mmap"]
CELLS = {  # mode, size, depth, connections
    "4K QD1": ("rnd", 4096, 1, 1),
    "4K QD32": ("rnd", 4096, 32, 1),
    "4K QD32 x4": ("rnd", 4096, 32, 4),
    "128K QD16": ("seq", 131072, 16, 1),
    "1M QD16": ("seq", 1048576, 16, 1),
}


def measure(lab, book, name, round_):
    server = lab.start(name)
    try:
        if round_ == 0 or name == "cairn":
            compare_all(server, lab.image)
        for cell, (mode, size, depth, connections) in CELLS.items():
            read_into_cache(lab.image, server.folders)
            row = load(server, mode, size, depth, connections, SECS)
            if "iops" in row:
                row["kiops"] = row["iops"] / 1e3
            book.add(name, cell, round_, row)
    finally:
        server.stop()


def field(cell):
    return "kiops" if cell.startswith("4K") else "MBps"


def run(lab):
    book = Book("warm")
    lab.origin.set(0, 0)
    for round_ in range(ROUNDS):
        for name in turn_order(SERVERS, round_):
            try:
                measure(lab, book, name, round_)
            except servers.Unavailable as why:
                skip(name, why)
    names = [n for n in SERVERS if any(r["server"] == n for r in book.rows)]
    cells = list(CELLS)
    tables.print_medians("Warm: thousand reads/s (4K) or MB/s, median (least–most)", book.rows,
                         names, cells, field)
    tables.print_medians("Warm: server µs of CPU a read", book.rows, names, cells,
                         "server_us_per_read")
    tables.print_ratios("Warm: ratio of speeds", book.rows, "cairn", names, cells, field)
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
