# SPDX-License-Identifier: Apache-2.0
"""The store and its disk: who waits for a read that is not in the page cache, ways to read a file
that is not there, opening a large store, and evicting from one under a reader."""
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse

import servers
import tables
from lab import IMAGE_MIB, ROUNDS, Book, load, skip

STALL_SECS = float(os.environ.get("STALL_SECS", 1.5))
NEIGHBOURS = {  # what eight others read on the same data thread: size, and where it is
    "none": None,
    "4K in the page cache": (4096, "cached"),
    "4K on the disk": (4096, "disk"),
    "128K on the disk": (131072, "disk"),
    "4K at the origin, 20 ms": (4096, "origin"),
}
WAYS = ["buffered", "dontcache", "drop", "direct"]
SIZES = {"4K": 4096, "128K": 131072, "1M": 1 << 20}
EVICT_GIB, REAL_GIB = 100, 3
OWN_CPU, OTHER_CPU = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


def storelab(*words):
    argv = [os.path.join(servers.TOOLS, "storelab"), *map(str, words)]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    return {"failed": p.stderr.strip()} if p.returncode else json.loads(p.stdout)


def median(book, server, cell, field):
    values, middle = tables.median_of(book.rows, server, cell, field)
    return middle if values else float("nan")


# Neighbours.


class Daemon(servers.Server):
    """cairnd with one data thread, and exports by name; each has an image of its own."""

    def __init__(self, lab):
        super().__init__(lab.scratch, "cairn")
        self.store = lab.scratch.fresh("store")
        self.control = f"{lab.scratch.short}/control.sock"
        os.makedirs(f"{lab.scratch.short}/run", exist_ok=True)
        conf = servers.cairn_config(self, self.store)
        with open(conf, "a") as f:
            f.write("[nbd]\nthreads = 1\n")
        self.pid = servers.launch([servers.CAIRND, "-c", conf], self.log)
        self.known = set()

    def open(self, url, name):
        """The data file of the image that it is the first to use."""
        argv = [servers.CAIRN, "--socket", self.control, "export", url, "--name", name]
        servers.wait_for(lambda: subprocess.run(argv, capture_output=True).returncode == 0, 20,
                         f"no export of {name}")
        uri = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        query = urllib.parse.urlsplit(uri.splitlines()[-1]).query
        self.socket = urllib.parse.parse_qs(query)["socket"][0]
        objects = os.path.join(self.store, "objects")
        new = {n for n in os.listdir(objects) if n.startswith("image-")} - self.known
        self.known |= new
        return os.path.join(objects, new.pop(), "data")

    def load(self, export, *words):
        self.export = export
        return load(self, *words)


class Dropper(threading.Thread):
    """Keeps a file out of the page cache."""

    def __init__(self, path):
        super().__init__()
        self.fd = os.open(path, os.O_RDONLY)
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self.fd)

    def stop(self):
        self.over.set()
        self.join()


class Sampler(threading.Thread):
    """Looks at what the data thread does: asleep anywhere but where it waits for requests, it
    holds up everybody. Needs root; without it `asleep` stays empty."""

    WAITS = ("io_cqring_wait", "ep_poll", "do_epoll_wait")

    def __init__(self, pid):
        super().__init__()
        self.folder = self.find(pid)
        self.over = threading.Event()
        self.seen = self.asleep = 0
        self.start()

    @staticmethod
    def find(pid):
        for worker in servers.descendants_of(pid):
            for tid in os.listdir(f"/proc/{worker}/task"):
                folder = f"/proc/{worker}/task/{tid}"
                with open(f"{folder}/comm") as f:
                    if f.read().startswith("nbd"):
                        return folder
        raise servers.Unavailable("cairnd has no data thread")

    def look(self):
        with open(f"{self.folder}/stack") as f:
            stack = f.read()
        with open(f"{self.folder}/stat") as f:
            state = f.read().rpartition(")")[2].split()[0]
        self.seen += 1
        # in no known place: it woke in between
        self.asleep += state == "D" or (state == "S" and "do_syscall" in stack and
                                        "exit_to_user" not in stack and
                                        not any(w in stack for w in self.WAITS))

    def run(self):
        while not self.over.wait(0.002):
            try:
                self.look()
            except OSError:
                return

    def stop(self):
        self.over.set()
        self.join()
        return {"asleep": 100 * self.asleep / self.seen} if self.seen else {}


def spread_out(daemon):
    """The data thread on the CPU of the reader who is timed, all else of the daemon on another: what
    is measured is who waits for whom, not how few CPUs there are."""
    for pid in [daemon.pid, *servers.descendants_of(daemon.pid)]:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/comm") as f:
                is_data = f.read().startswith("nbd")
            os.sched_setaffinity(int(tid), {OWN_CPU if is_data else OTHER_CPU})


def beside(daemon, export, size, answers):
    """Eight readers of @export for longer than the one who is timed, on the other CPU."""
    twin = object.__new__(servers.Server)
    twin.__dict__ = {**daemon.__dict__, "export": export}

    def read():
        os.sched_setaffinity(0, {OTHER_CPU})
        answers.append(load(twin, "rnd", size, 1, 8, STALL_SECS + 1, "--seed",
                            str(time.time_ns() % 10**9)))

    t = threading.Thread(target=read)
    t.start()
    time.sleep(0.3)
    return t


def stall(daemon, files, cell):
    """A resident reader of 4 KiB, one at a time, with those of @cell beside it."""
    span = ("--span", str(64 << 20))
    daemon.load("own", "seq", 1 << 20, 4, 1, 0.3, *span)
    answers, thread, dropper = [], None, None
    if NEIGHBOURS[cell]:
        size, where = NEIGHBOURS[cell]
        if where == "disk":
            dropper = Dropper(files["stored"])
        elif where == "cached":
            daemon.load("stored", "seq", 1 << 20, 4, 1, 1)
        thread = beside(daemon, "missing" if where == "origin" else "stored", size, answers)
    sampler = Sampler(daemon.pid)
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OWN_CPU})
    row = daemon.load("own", "rnd", 4096, 1, 1, STALL_SECS, *span)
    os.sched_setaffinity(0, everywhere)
    row.update(sampler.stop())
    if thread:
        thread.join()
        row["beside_MBps"] = answers[0].get("MBps")
    if dropper:
        dropper.stop()
    return row


def copies(lab):
    """Blobs with the same bytes and different names: objects of their own in the store."""
    names = {}
    for name in ("own", "stored"):
        path = os.path.join(os.path.dirname(lab.image), f"{name}-{IMAGE_MIB}.img")
        shutil.copyfile(lab.image, path)
        names[name] = path
    return names


def run_stalls(lab, book):
    paths = copies(lab)
    lab.origin.set(0, 0)
    daemon = Daemon(lab)
    try:
        files = {n: daemon.open(f"{lab.origin.url}/{os.path.basename(p)}", n)
                 for n, p in paths.items()}
        # so large that random reads never make it worth having: it stays at the origin
        files["missing"] = daemon.open(lab.large_url, "missing")
        for name in ("own", "stored"):
            daemon.load(name, "once", 1 << 20, 8, 1, 120)
        os.sync()
        spread_out(daemon)
        lab.origin.set(20, 0)
        for round_ in range(ROUNDS):
            for cell in NEIGHBOURS:
                book.add("cairn", cell, round_, stall(daemon, files, cell))
    finally:
        lab.origin.set(0, 0)
        daemon.stop()
        for path in paths.values():
            os.unlink(path)
    lines = [[cell, *(tables.spread(tables.median_of(book.rows, "cairn", cell, f)[0])
                      for f in ("p50_us", "p99_us", "beside_MBps", "asleep")),
              *(tables.number(median(book, "cairn", cell, "p99_us") /
                              median(book, "cairn", other, "p99_us"))
                for other in ("none", "4K in the page cache"))] for cell in NEIGHBOURS]
    tables.print_grid("Store: µs of a resident 4 KiB read, eight readers beside it on one thread",
                      ["p50", "p99", "MB/s beside", "% asleep elsewhere", "p99 / none",
                       "/ cached"], lines)
    print("  Reader and data thread share a CPU, all else has another. The second row is what eight more\n"
          "  readers of the thread cost where none of them waits for anything.")


# The disk.


def run_ways(lab, book):
    path = os.path.join(lab.scratch.disk, "cold.img")
    with open(lab.image, "rb") as src, open(path, "wb") as dst:
        shutil.copyfileobj(src, dst, 4 << 20)
        dst.truncate(256 << 20)
        os.fsync(dst.fileno())
    for round_ in range(ROUNDS):
        for way in WAYS:
            for cell, size in SIZES.items():
                row = storelab("cold", path, way, size)
                if "failed" in row:
                    skip(way, row["failed"])
                book.add(way, cell, round_, row)
    os.unlink(path)
    for title, field in (("MB/s", "MBps"), ("µs of CPU a MiB", "cpu_us_per_mib"),
                         ("MiB of 256 left in the page cache", "left_mib")):
        tables.print_medians(f"Store: a cold file in order, one read at a time: {title}",
                             book.rows, WAYS, list(SIZES), field)


def run_open(lab, book):
    for round_ in range(ROUNDS):
        for objects in (1, 200):
            row = storelab("open", lab.scratch.fresh("open"), 1024, objects)
            book.add("open", f"{objects} objects", round_, row)
    tables.print_medians("Store: seconds to open 1 TiB of sparse content", book.rows, ["open"],
                         ["1 objects", "200 objects"], "seconds")


def run_evict(lab, book):
    for round_ in range(min(ROUNDS, 5)):
        row = storelab("evict", lab.scratch.fresh("evict"), EVICT_GIB, REAL_GIB)
        book.add("evict", "reads", round_, row)
    lab.scratch.fresh("evict")
    cells = {"longest read, ms": "longest_ms", "the same without": "longest_alone_ms",
             "it slept, ms": "longest_sleep_ms", "a flight waited, ms": "pin_longest_ms",
             "all took, s": "seconds"}
    lines = [["", *(tables.spread(tables.median_of(book.rows, "evict", "reads", f)[0])
                    for f in cells.values())]]
    tables.print_grid(f"Store: evicting {EVICT_GIB} GiB at once, {REAL_GIB} of it really stored",
                      list(cells), lines)


def run(lab):
    book = Book("store")
    try:
        run_stalls(lab, book)
    except servers.Unavailable as why:
        skip("cairn", why)
    run_ways(lab, book)
    run_open(lab, book)
    run_evict(lab, book)
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")
