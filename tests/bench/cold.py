# SPDX-License-Identifier: Apache-2.0
"""Reads of a slow origin into an empty store: in order, and random on 64 GiB.

The origin answers after 20 ms and sends 80 MB/s a connection, but for the cell of 0 ms, which is
bound by the processors: there a server that keeps what it read is the peer, and Cairn with one fill
thread stands beside Cairn as it ships. The image is sealed, so Cairn verifies every byte; peers read
the same blob as it is. Each cell has a new server with nothing kept.
"""
import os

import servers
import tables
from lab import COLD_SECS, IMAGE_MIB, ROUNDS, Book, compare_all, failed, fio, load, read_file
from lab import skip, turn_order

FAR, NEAR = (20, 80_000_000), (0, 0)  # ms, bytes/s a connection
PEERS = ["nbdkit curl", "nbdkit curl x4", "curl + cow 1M", "qemu http", "rclone full"]
CELLS = {  # origin, large image?, mode, size, depth, servers
    "1M in order QD4": (FAR, False, "once", 1 << 20, 4, ["cairn", *PEERS]),
    "4K random QD1": (FAR, True, "rnd", 4096, 1, ["cairn", *PEERS[:1], *PEERS[2:]]),
    "128K random QD16": (FAR, True, "rnd", 131072, 16, ["cairn", *PEERS]),
    "0 ms, 1M in order": (NEAR, False, "once", 1 << 20, 4,
                          ["cairn", "cairn 1 fill thread", "curl + cow 64K"]),
}
FIO = {  # which of these fio reads as well
    "1M in order QD4": ("read", ["cairn", "qemu http", "rclone full"]),
    "4K random QD1": ("randread", ["cairn", "nbdkit curl"]),
    "128K random QD16": ("randread", ["cairn", "qemu http"]),
}
RANDOM_READS = 400  # of Cairn a round, so that five rounds have 2,000


def limits(name, cell):
    """Seconds and reads at most. Peers are as fast in the first seconds as later."""
    if CELLS[cell][2] == "rnd":
        ours = cell.startswith("4K") and name.startswith("cairn")
        return (COLD_SECS * 5, RANDOM_READS) if ours else (COLD_SECS / 2, None)
    return (COLD_SECS * 2 if name.startswith("cairn") else COLD_SECS), None


def read_with_nbdload(server, name, cell, round_):
    _, _, mode, size, depth, _ = CELLS[cell]
    connections = 4 if name.endswith("x4") else 1
    seconds, reads = limits(name, cell)
    ops = ["--ops", str(reads)] if reads else []
    return load(server, mode, size, max(1, depth // connections), connections, seconds,
                "--seed", str(round_ + 1), "--stall", "10", *ops)


def read_with_fio(server, name, cell, round_):
    _, _, _, size, depth, _ = CELLS[cell]
    row = fio(server, FIO[cell][0], size, depth, 1, COLD_SECS / 2, f"--randseed={round_ + 1}")
    if "bytes" in row:
        row["unique_bytes"] = row["bytes"]  # no block twice, as fio reads
    return row


def measure(lab, book, name, cell, round_, client):
    """The server starts while the origin is fast: an attach is not what is measured here."""
    origin, large = CELLS[cell][:2]
    lab.origin.set(0, 0)
    server = lab.start(name, lab.large_url if large else lab.url)
    try:
        lab.origin.set(*origin)
        lab.origin.ask("__reset")
        row = client(server, name, cell, round_)
        stats = lab.origin.ask("__stats")
    finally:
        lab.origin.set(0, 0)
        server.stop()
    if row.get("unique_bytes"):
        row["data_x"] = stats["data_bytes"] / row["unique_bytes"]
        row["tree_x"] = stats["tree_bytes"] / row["unique_bytes"]
        row["p50_ms"] = row["p50_us"] / 1e3
    prefix = "fio " if client is read_with_fio else ""
    book.add(name, prefix + cell, round_, {**row, "origin": stats})


def measure_cell(lab, book, names, cell, round_, client):
    read_file(lab.image)
    for name in turn_order(names, round_):
        try:
            measure(lab, book, name, cell, round_, client)
        except servers.Unavailable as why:
            failed(book, name, cell, round_, why)


def check_bytes(lab):
    """Of Cairn all, since the bench measures nothing that reads wrong."""
    lab.origin.set(0, 0)
    server = lab.start("cairn")
    try:
        compare_all(server, lab.image)
    finally:
        server.stop()


def unit(cell):
    return "iops" if "4K" in cell else "MBps"


def print_tables(book):
    measured = {r["server"] for r in book.rows}
    names = [n for n in ["cairn", "cairn 1 fill thread", *PEERS, "curl + cow 64K"]
             if n in measured]
    cells = list(CELLS)
    tables.print_medians(f"Cold: MB/s ({IMAGE_MIB} MiB in order, random on 64 GiB), reads/s (4K)",
                         book.rows, names, cells, unit)
    tables.print_ratios("Cold: ratio of speeds", book.rows, "cairn", names, cells, unit,
                        [*PEERS, "curl + cow 64K"])
    tables.print_medians("Cold: ms a read, median", book.rows, names, cells, "p50_ms")
    tables.print_medians("Cold: data bytes from the origin / bytes read", book.rows, names, cells,
                         "data_x")
    tables.print_medians("Cold: tree bytes / bytes read", book.rows, ["cairn"], cells, "tree_x")
    fio_cells = [f"fio {c}" for c in FIO]
    names = [n for n in names if any(n in peers for _, peers in FIO.values())]
    tables.print_medians("Cold, read by fio: MB/s, reads/s (4K)", book.rows, names, fio_cells, unit)
    tables.print_ratios("Cold, read by fio: ratio of speeds", book.rows, "cairn", names, fio_cells,
                        unit)


def run(lab):
    book = Book("cold")
    try:
        check_bytes(lab)
    except servers.Unavailable as why:
        skip("cairn", why)
    for round_ in range(ROUNDS):
        for cell in CELLS:
            measure_cell(lab, book, CELLS[cell][-1], cell, round_, read_with_nbdload)
        for cell, (_, names) in FIO.items():
            measure_cell(lab, book, names, cell, round_, read_with_fio)
    print_tables(book)
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
