# SPDX-License-Identifier: Apache-2.0
"""What the tables share: the image, the load tool, which server's turn it is, and the rows.

A table is a module of this folder with run(lab): it adds rows to a Book and prints what they say.
"""
import json
import os
import subprocess
import sys
import time

import images
import servers

ROUNDS = int(os.environ.get("ROUNDS", 5))
SECS = float(os.environ.get("SECS", 1))
COLD_SECS = float(os.environ.get("COLD_SECS", 3))
FILES_SECS = float(os.environ.get("FILES_SECS", 5))
IMAGE_MIB = images.MIB
ONLY = [s for s in os.environ.get("SERVERS", "").split(",") if s]

skipped = {}  # server: why
books = {}    # table: the rows of this run


class Lab:
    """What a table works with: one image, its origin, a scratch folder."""

    def __init__(self):
        self.scratch = servers.Scratch()
        images.make()
        self.image = images.RANDOM
        self.origin = servers.Origin(images.FOLDER, images.origin_options())
        self.url = f"{self.origin.url}/{os.path.basename(self.image)}"
        self.large_url = f"{self.origin.url}/{images.LARGE_NAME}"

    def start(self, name, url=None):
        return servers.start(self.scratch, name, self.image, url or self.url)

    def rows_of(self, table):
        return books.get(table, [])


def read_file(path, buffer=bytearray(4 << 20)):
    with open(path, "rb", buffering=0) as f:
        while f.readinto(buffer):
            pass


def read_into_cache(image, folders):
    read_file(image)
    for folder in folders:
        for at, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(at, name)
                if os.path.isfile(path):
                    read_file(path)


def load(server, mode, size, depth, connections, seconds, *options):
    """What nbdload says, or a row that says why it failed."""
    argv = [os.path.join(servers.TOOLS, "nbdload"), "--pid", str(server.pid), *options,
            server.socket, server.export, mode, str(size), str(depth), str(connections),
            str(seconds)]
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        return {"failed": "nbdload did not end"}
    if p.returncode != 0:
        return {"failed": (p.stderr or p.stdout).strip()}
    return json.loads(p.stdout)


def fio(server, rw, size, depth, connections, seconds, *options):
    """The same by fio's nbd engine, which is a limit itself, in nbdload's words. fio knows whole
    seconds only."""
    servers.need("fio")
    argv = ["fio", "--name=bench", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}",
            f"--bs={size}", f"--iodepth={depth}", f"--numjobs={connections}", "--thread",
            "--group_reporting", f"--runtime={max(1, round(seconds))}", "--output-format=json", *options]
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        return {"failed": "fio did not end"}
    if p.returncode != 0:
        return {"failed": (p.stderr or p.stdout).strip()[-300:]}
    read = json.loads(p.stdout[p.stdout.index("{"):])["jobs"][0]["read"]
    return {"reads": read["total_ios"], "bytes": read["io_bytes"], "iops": read["iops"],
            "MBps": read["bw_bytes"] / 1e6, "seconds": read["runtime"] / 1e3,
            "p50_us": read["clat_ns"]["percentile"]["50.000000"] / 1e3}


class Book:
    """The rows of one table, kept on disk as they come."""

    def __init__(self, table):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.path = os.path.join(servers.TOOLS, f"{table}-{stamp}.jsonl")
        self.rows = books[table] = []

    def add(self, server, cell, round_, row):
        row = {"server": server, "cell": cell, "round": round_, **row}
        if "failed" in row:
            print(f"bench: {server}, {cell}: {row['failed']}", file=sys.stderr)
        self.rows.append(row)
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")


def failed(book, server, cell, round_, why):
    """A server that never worked is left out from then on; another's cell has no figure."""
    worked = any(r["server"] == server and "failed" not in r for r in book.rows)
    if worked or isinstance(why, servers.Hung):
        book.add(server, cell, round_, {"failed": str(why)})
    else:
        skip(server, why)


def skip(name, why):
    if name not in skipped:
        print(f"bench: without {name}: {why}", file=sys.stderr)
    skipped[name] = str(why)


def turn_order(names, round_):
    names = [n for n in names if not ONLY or n in ONLY]
    first = round_ % len(names) if names else 0
    return [n for n in names[first:] + names[:first] if n not in skipped]


def compare_all(server, image):
    """Every byte once: a wrong server has no figures. It also fills a store that was empty."""
    row = load(server, "once", 1 << 20, 8, 1, 120, "--verify", image)
    if "failed" in row or row["bytes"] < IMAGE_MIB << 20:
        raise servers.Unavailable(f"it does not read the image: {row}")
