# SPDX-License-Identifier: Apache-2.0
"""Files of a mounted image, read whole from a slow origin with nothing kept.

8,000 of 110 KiB on average, in directory order by one thread and in random order by sixteen, at
20 ms and 80 MB/s a connection, so many seconds each. The first lists the directories on the way, the
second knows the names. Cairn is mounted by `cairn mount`, the peers over nbdfuse and a loop
device, rclone's file over a loop device.
"""
import json
import os

import images
import mounts
import servers
import tables
from lab import FILES_SECS, ROUNDS, Book, failed, read_file, turn_order

FILE_SYSTEMS = os.environ.get("FILES_FS", "erofs").split()
SERVERS = ["cairn", "curl + cow 1M", "qemu http", "rclone full"]
ORDERS = {"in order, 1 thread": ("order", 1), "random, 16 threads": ("random", 16)}
CELLS = {f"{fs} {text}": (fs, *how) for fs in FILE_SYSTEMS for text, how in ORDERS.items()}


def start(lab, name, url):
    """Of Cairn the daemon alone, as mounting is what exports there."""
    return lab.start("cairn, no export" if name == "cairn" else name, url)


def read_files(server, point, how, threads, round_):
    argv = [os.path.join(servers.TOOLS, "filesread"), how, point, str(threads), str(FILES_SECS)]
    if how == "random":
        argv += [images.LIST, str(round_ + 1)]
    return json.loads(mounts.run(argv, server, FILES_SECS + 10))


def measure(lab, book, name, cell, round_):
    fs, how, threads = CELLS[cell]
    url = f"{lab.origin.url}/files.{fs}"
    lab.origin.set(0, 0)
    server = start(lab, name, url)
    try:
        point = mounts.mount(server, url, fs)
        lab.origin.set(20, 80_000_000)
        lab.origin.ask("__reset")
        row = read_files(server, point, how, threads, round_)
        stats = lab.origin.ask("__stats")
    finally:
        lab.origin.set(0, 0)
        server.stop()
    row["data_x"] = stats["data_bytes"] / row["unique_bytes"] if row["unique_bytes"] else None
    book.add(name, cell, round_, {**row, "origin": stats})


def run(lab):
    book = Book("files")
    if not mounts.ready("mounted files"):
        return
    for round_ in range(ROUNDS):
        for cell, (fs, *_) in CELLS.items():
            read_file(os.path.join(images.FOLDER, f"files.{fs}"))
            for name in turn_order(SERVERS, round_):
                try:
                    measure(lab, book, name, cell, round_)
                except servers.Unavailable as why:
                    failed(book, name, cell, round_, why)
    names = [n for n in SERVERS if any(r["server"] == n for r in book.rows)]
    cells = list(CELLS)
    tables.print_medians("Files, mounted: MB/s", book.rows, names, cells, "MBps")
    tables.print_medians("Files, mounted: files/s a thread", book.rows, names, cells,
                         "files_a_thread")
    tables.print_ratios("Files, mounted: ratio of speeds", book.rows, "cairn", names, cells,
                        "files_a_thread", SERVERS[1:])
    tables.print_medians("Files, mounted: data bytes from the origin / bytes of the files",
                         book.rows, names, cells, "data_x")
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
