# SPDX-License-Identifier: Apache-2.0
"""8,000 files of an erofs image, read whole in random order by four threads from a cold page cache:
through the worker, promoted, with the store's file mounted as such, and from a plain local loop
device on a copy of the image.

The image is complete in the store each time. Between turns the file system is unmounted and the
pages of the files below it are dropped, so each turn reads the disk."""
import concurrent.futures
import glob
import os
import random
import subprocess
import time

import images
import servers
import tables
from lab import ROUNDS, Book, skip, turn_order

WAYS = ["plain loop", "not promoted", "promoted", "erofs on the file"]  # see PROMOTE
THREADS = 4
CELL = "8,000 files"
PROMOTE = {"not promoted": "never", "promoted": "auto", "erofs on the file": "erofs-file"}


def run_or_fail(*argv):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if p.returncode != 0:
        raise servers.Unavailable(f"{' '.join(argv[:3])}: {(p.stderr or p.stdout).strip()}")
    return p.stdout.strip()


def drop_pages(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Bed:
    """A cairnd with the whole image in its store, and a folder to mount on."""

    def __init__(self, lab):
        if os.geteuid() != 0:
            raise servers.Unavailable("mounting needs root")
        images.make_files()
        self.image = os.path.join(images.FOLDER, "files.erofs")
        self.url = f"file://{self.image}"
        self.point = os.path.join(lab.scratch.short, "mnt")
        os.mkdir(self.point)
        store = lab.scratch.fresh("store")
        self.server = servers.Server(lab.scratch, "cairn")
        self.server.control = os.path.join(lab.scratch.short, "control.sock")
        config = servers.cairn_config(self.server, store, "")
        self.server.pid = servers.launch([servers.CAIRND, "-c", config], self.server.log)
        servers.wait_for(self.answers, 20, "cairnd does not answer")
        servers.cairn_export(self.server, self.url)
        self.cairn("fetch", "bench", "--wait")
        self.data = max(glob.glob(f"{store}/objects/image-*/data"), key=os.path.getsize)

    def answers(self):
        argv = [servers.CAIRN, "--socket", self.server.control, "status"]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0

    def cairn(self, *argv):
        return run_or_fail(servers.CAIRN, "--socket", self.server.control, *argv)

    def mount(self, way):
        """What takes it away again."""
        if way == "plain loop":
            loop = run_or_fail("losetup", "-f", "--show", "-r", "--direct-io=on", self.image)
            run_or_fail("mount", "-t", "erofs", "-o", "ro", loop, self.point)
            return [["umount", self.point], ["losetup", "-d", loop]]
        self.cairn("mount", self.url, self.point, "--name", "device", "--promote", PROMOTE[way],
                   "--way", "nbdfuse")
        return [[servers.CAIRN, "--socket", self.server.control, "umount", self.point]]


def cpu_seconds(pid):
    """Of cairnd, its worker and nbdfuse: user and system."""
    ticks = 0
    for one in (pid, *servers.descendants_of(pid)):
        try:
            with open(f"/proc/{one}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def read_whole(path):
    with open(path, "rb", buffering=0) as f:
        return len(f.read())


def read_tree(point, round_):
    paths = [os.path.join(at, name) for at, _, names in os.walk(point) for name in names]
    random.Random(round_).shuffle(paths)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        got = sum(pool.map(read_whole, paths, chunksize=50))
    seconds = time.monotonic() - began
    return {"files": len(paths), "files_s": len(paths) / seconds, "MBps": got / 1e6 / seconds}


def measure(bed, book, way, round_):
    undo = bed.mount(way)
    try:
        for path in (bed.image, bed.data):
            drop_pages(path)
        before = cpu_seconds(bed.server.pid)
        row = read_tree(bed.point, round_)
        row["server_us"] = (cpu_seconds(bed.server.pid) - before) * 1e6 / row["files"]
        book.add(way, CELL, round_, row)
    finally:
        for argv in undo:
            run_or_fail(*argv)


def run(lab):
    book = Book("promote")
    try:
        bed = Bed(lab)
    except servers.Unavailable as why:
        skip("promote", why)
        return
    for round_ in range(ROUNDS):
        for way in turn_order(WAYS, round_):
            try:
                measure(bed, book, way, round_)
            except servers.Unavailable as why:
                skip(way, why)
    bed.server.stop()
    for field, what in (("files_s", "files/s"), ("MBps", "MB/s"),
                        ("server_us", "µs of CPU a file of cairnd and nbdfuse")):
        tables.print_medians(f"Promotion, cold page cache: {what}, median (least–most)", book.rows,
                             WAYS, [CELL], field)
    tables.print_ratios("Promotion: ratio of speeds", book.rows, "promoted", WAYS, [CELL], "MBps")
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
