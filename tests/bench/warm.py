# SPDX-License-Identifier: Apache-2.0
"""Reads of bytes that are in the page cache, over a unix socket: what the server itself costs.

Three tables of one run. By nbdload: Cairn, its peers, and the reference servers, which do nothing
but serve (a ceiling). By fio's nbd engine, which is a limit itself. And the two kinds of connection,
by the product's NBD server alone: the unix socket of programs, and the loopback TCP with a ledger of
devices. The best of the peers is chosen cell by cell.
"""
import os
import statistics

import servers
import tables
from lab import ROUNDS, Book, compare_all, fio, load, read_into_cache, skip, turn_order

SECS = float(os.environ.get("SECS", 0.4))
FIO_SECS = max(1, round(SECS))  # fio takes whole seconds
PEERS = ["nbdkit file", "nbd-server", "qemu-nbd"]
SERVERS = ["cairn", *PEERS, "ref pread", "ref mmap"]
KINDS = {"unix socket": [], "link": ["--link"]}  # options of nbdload
CELLS = {  # mode, size, depth, connections
    "4K QD1": ("rnd", 4096, 1, 1),
    "4K QD32": ("rnd", 4096, 32, 1),
    "4K QD32 x2": ("rnd", 4096, 32, 2),
    "4K QD32 x4": ("rnd", 4096, 32, 4),
    "128K QD16": ("seq", 131072, 16, 1),
    "128K QD16 x4": ("seq", 131072, 16, 4),
    "1M QD16": ("seq", 1048576, 16, 1),
}
FIO_CELLS = {cell: CELLS[cell] for cell in ("4K QD1", "4K QD32", "128K QD16")}
KIND_CELLS = {cell: CELLS[cell] for cell in ("4K QD1", "4K QD32", "4K QD32 x4", "128K QD16",
                                             "1M QD16")}
FIO_MODES = {"rnd": "randread", "seq": "read"}
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """Of a process, its children, and those it had."""
    total = 0
    for p in [pid, *servers.descendants_of(pid)]:
        try:
            with open(f"/proc/{p}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile, and its parent has its time
            continue
        total += sum(int(x) for x in fields[11:15]) / TICK
    return total


def by_fio(server, mode, size, depth, connections):
    before = cpu_seconds(server.pid)
    row = fio(server, FIO_MODES[mode], size, depth, connections, FIO_SECS, "--time_based")
    if "failed" not in row:
        row["server_us_per_read"] = (cpu_seconds(server.pid) - before) * 1e6 / row["reads"]
    return row


def add(book, name, cell, round_, row):
    if "iops" in row:
        row["kiops"] = row["iops"] / 1e3
    book.add(name, cell, round_, row)


def measure(lab, books, name, round_):
    server = lab.start(name)
    try:
        if round_ == 0 or name == "cairn":
            compare_all(server, lab.image)
        read_into_cache(lab.image, server.folders)
        for cell, how in CELLS.items():
            add(books["nbdload"], name, cell, round_, load(server, *how, SECS))
        if name.startswith("ref"):
            return
        for cell, how in FIO_CELLS.items():
            add(books["fio"], name, cell, round_, by_fio(server, *how))
    finally:
        server.stop()


def linkserver(kind):
    def up(server, image, url):
        server.run([os.path.join(servers.TOOLS, "linkserver"), kind, server.socket, image])

    return up


servers.WAYS["unix socket"] = linkserver("unix")
servers.WAYS["link"] = linkserver("link")


def measure_kind(lab, book, kind, round_):
    server = lab.start(kind)
    try:
        read_into_cache(lab.image, [])
        for cell, how in KIND_CELLS.items():
            add(book, kind, cell, round_, load(server, *how, SECS, *KINDS[kind]))
    finally:
        server.stop()


def field(cell):
    return "kiops" if cell.startswith("4K") else "MBps"


def us(cell):
    return "server_us_per_read"


def against(rows, subject, peers, cells, name, best):
    """The subject's median by that of the best peer, and which that is, for each cell."""
    line = []
    for cell in cells:
        ours = tables.median_of(rows, subject, cell, name(cell))[1]
        medians = {p: tables.median_of(rows, p, cell, name(cell))[1] for p in peers}
        medians = {p: m for p, m in medians.items() if m}
        peer = best(medians, key=medians.get) if medians else None
        line.append(f"{ours / medians[peer]:.2f} ({peer})" if ours and peer else "-")
    return line


def spread_of_pairs(rows, subject, peer, cells, name):
    """The same round's figures, one by the other: least, median, most."""
    line = []
    for cell in cells:
        by_round = {(r["server"], r["round"]): r.get(name(cell)) for r in rows if r["cell"] == cell}
        pairs = [by_round[subject, i] / by_round[peer, i] for i in range(ROUNDS)
                 if by_round.get((subject, i)) and by_round.get((peer, i))]
        line.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f}–{max(pairs):.2f})"
                    if pairs else "-")
    return line


def print_client(title, rows, names, cells):
    names = [n for n in names if any(r["server"] == n for r in rows)]
    tables.print_medians(f"{title}: thousand reads/s (4K) or MB/s, median (least–most)", rows,
                         names, cells, field)
    tables.print_medians(f"{title}: server µs of CPU a read", rows, names, cells, us)
    tables.print_grid(f"{title}: cairn by the best of its peers", cells, [
        ["speed", *against(rows, "cairn", PEERS, cells, field, max)],
        ["server CPU", *against(rows, "cairn", PEERS, cells, us, min)]])


def print_kinds(rows):
    cells = list(KIND_CELLS)
    tables.print_medians("Kinds of connection, the NBD server alone: thousand reads/s or MB/s",
                         rows, list(KINDS), cells, field)
    tables.print_medians("Kinds of connection: server µs of CPU a read", rows, list(KINDS), cells,
                         us)
    tables.print_grid("Kinds of connection: link by unix socket, round by round", cells, [
        [name, *spread_of_pairs(rows, "link", "unix socket", cells, how)]
        for name, how in (("speed", field), ("server CPU", us))])


def run(lab):
    books = {"nbdload": Book("warm"), "fio": Book("warm-fio"), "kinds": Book("warm-kinds")}
    lab.origin.set(0, 0)
    for round_ in range(ROUNDS):
        for name in turn_order(SERVERS, round_):
            try:
                measure(lab, books, name, round_)
            except servers.Unavailable as why:
                skip(name, why)
        for kind in turn_order(list(KINDS), round_):
            measure_kind(lab, books["kinds"], kind, round_)
    print_client("Warm", books["nbdload"].rows, SERVERS, list(CELLS))
    tables.print_ratios("Warm: ratio of speeds", books["nbdload"].rows, "cairn", SERVERS,
                        list(CELLS), field)
    print_client("Warm, by fio", books["fio"].rows, ["cairn", *PEERS], list(FIO_CELLS))
    print_kinds(books["kinds"].rows)
    for book in books.values():
        print(f"  {os.path.relpath(book.path, servers.ROOT)}")
