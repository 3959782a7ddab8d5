# SPDX-License-Identifier: Apache-2.0
"""Does a read cost more where there is more: exports, or bytes of an image?

Resident 4 KiB reads, of the same amount of data each time, from three daemons that stay up and take
turns. The large images hold their data in strips over all of their length: extents, which are what
the store takes and frees, or blocks, each alone. As root the images and stores lie on an xfs of their own (ext4 ends at 16 TiB).
"""
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time

import servers
import tables
from lab import ROUNDS, SECS, Book, load, skip
from servers import CAIRN, CAIRND

EXPORTS = int(os.environ.get("EXPORTS", 1000))
SPREAD = 64  # of the exports, read side by side
DATA = 128 << 20
DEVICES = int(os.environ.get("DEVICES", 16))  # two processes each
LENGTHS = {"1 GiB": 1 << 30, "1 TiB": 1 << 40, "64 TiB": 1 << 46}
STRIPS = {"extents": 4 << 20, "blocks": 64 << 10}  # far apart: whole extents, or lone blocks


class Control(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        self.request(method, path, json.dumps(body) if body else None)
        answer = self.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise servers.Unavailable(f"{method} {path}: {text[:300]}")
        return json.loads(text)


class Daemon:
    pid = 0

    def __init__(self, lab, place, name):
        place.daemons.append(self)
        self.name = name
        self.folder = os.path.join(lab.scratch.short, name)
        self.store = os.path.join(place.path, f"store-{name}")
        self.log = os.path.join(lab.scratch.disk, f"{name}.log")
        self.control = f"{self.folder}/c.sock"
        self.socket = f"{self.folder}/n.sock"
        self.config = f"{self.folder}/cairnd.ini"
        os.makedirs(f"{self.folder}/run")
        with open(self.config, "w") as f:
            f.write(f"[daemon]\ncontrol_socket = {self.control}\nruntime_dir = {self.folder}/run\n"
                    f"[nbd]\nsocket = {self.socket}\n[store]\npath = {self.store}\nsize = 8GiB\n")
        self.pid = servers.launch([CAIRND, "-c", self.config], self.log)
        self.wait_for_answer(lambda status: True)

    def wait_for_answer(self, is_it):
        end = time.monotonic() + 60
        while True:
            try:
                status = Control(self.control).ask("GET", "/v1/status")
                if is_it(status):
                    return status
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > end or not servers.alive(self.pid):
                raise servers.Unavailable(f"{self.name}: {servers.last_line(self.log)}")
            time.sleep(0.002)

    def worker(self):
        return self.wait_for_answer(lambda status: True)["worker_pid"]

    def memory_mib(self):
        with open(f"/proc/{self.worker()}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("RssAnon")) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.worker()}/fd"))

    def export(self, path, name):
        """Milliseconds."""
        began = time.monotonic()
        Control(self.control).ask("POST", "/v1/exports", {"url": f"file://{path}", "name": name})
        return (time.monotonic() - began) * 1e3

    def reads_warm(self, name, *options, connections=1, depth=32):
        """Idle page cache may be reclaimed, so all is read right before what is measured."""
        self.reads(name, 0.3, *options, connections=connections, depth=8, mode="seq", size=64 << 10)
        return self.reads(name, SECS, *options, connections=connections, depth=depth)

    def reads(self, name, seconds, *options, connections=1, depth=32, mode="rnd", size=4096):
        target = type("Target", (), {"pid": self.pid, "socket": self.socket, "export": name})
        row = load(target, mode, size, depth, connections, seconds, *options)
        if "failed" in row:
            raise servers.Unavailable(f"{self.name}, {name}: {row['failed']}")
        return row


class Place:
    """A folder for images and stores; of files up to 8 EiB where we may make an xfs."""

    def __init__(self, lab):
        self.path = lab.scratch.fresh("scale")
        self.is_xfs = False
        self.daemons = []
        os.chmod(self.path, 0o755)
        image = os.path.join(lab.scratch.disk, "scale.xfs")
        try:
            with open(image, "wb") as f:
                f.truncate(8 << 30)
            call(["mkfs.xfs", "-q", "-f", image])
            call(["mount", "-o", "loop", image, self.path])
            self.is_xfs = True
        except (servers.Unavailable, OSError) as why:
            skip("64 TiB", f"no xfs can be mounted: {why}")

    def remove(self):
        if self.is_xfs:
            subprocess.run(["umount", self.path], timeout=60)

    def strips(self, name, length, strip):
        """DATA bytes, in strips over all of the length."""
        path = os.path.join(self.path, name)
        source = random.Random(length)
        with open(path, "wb") as f:
            f.truncate(length)
            for i in range(DATA // strip):
                f.seek(i * (length // (DATA // strip)))
                f.write(source.randbytes(strip))
        return path

    def pushed(self, path):
        """The same, sealed."""
        call([CAIRN, "image", "push", "-q", path, f"file://{path}.sealed"])
        return f"{path}.sealed"


def call(argv):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if p.returncode != 0:
        raise servers.Unavailable(f"{os.path.basename(argv[0])}: {p.stderr.strip()[-300:]}")
    return p.stdout


def timed(argv):
    """Milliseconds."""
    began = time.monotonic()
    call(argv)
    return (time.monotonic() - began) * 1e3


def warm(daemon, name, file, *options, connections=1):
    """Each byte once, compared; then it is in the store and in the page cache."""
    row = daemon.reads(name, 120, "--verify", file, *options, mode="once", depth=8,
                       size=64 << 10, connections=connections)
    if row["unique_bytes"] < DATA:
        raise servers.Unavailable(f"{name}: read {row['unique_bytes']} of {DATA} bytes")


# Many exports.


def few_and_many(lab, place, facts):
    one = place.strips("one", DATA, DATA)
    few, many = Daemon(lab, place, "few"), Daemon(lab, place, "many")
    few.export(one, "one")
    many.export(one, "one")
    piece = os.path.join(place.path, "piece")
    with open(one, "rb") as a, open(piece, "wb") as b:
        b.write(a.read(DATA // SPREAD))
    times = []
    for i in range(EXPORTS - 1):
        path = os.path.join(place.path, f"piece-{i}")
        os.link(piece, path)
        times.append(many.export(path, f"piece-{i}"))
    facts.append(f"an export is added in {statistics.median(times[:20]):.1f} ms at first, "
                 f"in {statistics.median(times[-20:]):.1f} ms after {EXPORTS - 20} (medians of 20)")
    for daemon in (few, many):
        warm(daemon, "one", one)
    for i in range(SPREAD):
        row = many.reads(f"piece-{i}", 60, "--verify", piece, mode="once", size=64 << 10)
        if row["unique_bytes"] < DATA // SPREAD:
            raise servers.Unavailable(f"piece-{i}: read {row['unique_bytes']} bytes")
    for daemon in (few, many):
        facts.append(f"{daemon.name}: exports {count(daemon)}, {daemon.descriptors()} descriptors, "
                     f"RssAnon {daemon.memory_mib():.1f} MiB")
    return {
        "1 export": lambda: few.reads_warm("one"),
        f"{EXPORTS} exports": lambda: many.reads_warm("one"),
        f"1 export, {SPREAD} readers": lambda: few.reads_warm(
            "one", connections=SPREAD, depth=4),
        f"{SPREAD} of {EXPORTS}, {SPREAD} readers": lambda: many.reads_warm(
            "piece-", "--exports", str(SPREAD), connections=SPREAD, depth=4),
    }, (few, many)


def count(daemon):
    return len(Control(daemon.control).ask("GET", "/v1/exports"))


def how_long(daemons, facts):
    """What an operator waits for, with few exports and with many."""
    for d in daemons:
        times = [timed([CAIRN, "--socket", d.control, "status"]) for _ in range(5)]
        dead = d.worker()
        exports = count(d)
        began = time.monotonic()
        os.kill(dead, signal.SIGKILL)
        status = d.wait_for_answer(lambda s: s["worker_pid"] != dead and
                                   len(s["images"]) == exports)
        facts.append(f"{d.name}: `cairn status` {statistics.median(times):.0f} ms; all exports "
                     f"again {(time.monotonic() - began) * 1e3:.0f} ms after the worker "
                     f"was killed, with {status['store']['objects']} objects in the store")


# Large images.


def large(lab, place, facts):
    daemon = Daemon(lab, place, "large")
    cells = {}
    for kind, strip in STRIPS.items():
        for length_name, length in LENGTHS.items():
            if length > 1 << 43 and not place.is_xfs:
                continue
            name = f"{length_name.replace(' ', '')}-{kind}"
            options = ("--stride", str(length // (DATA // strip)), "--strip", str(strip))
            file = place.strips(name, length, strip)
            before = daemon.memory_mib()
            began = time.monotonic()
            image = file if length > 1 << 43 else place.pushed(file)
            sealed = "unsealed" if image == file else \
                f"sealed and pushed in {time.monotonic() - began:.1f} s"
            daemon.export(image, name)
            warm(daemon, name, file, *options)
            facts.append(f"{length_name}, {kind}, {sealed}: RssAnon grew by "
                         f"{daemon.memory_mib() - before:.1f} MiB for {DATA >> 20} MiB of data")
            cells[f"{length_name}, {kind}"] = lambda name=name, options=options: daemon.reads_warm(
                name, *options)
    return cells


def attached(daemon, place, facts):
    """As many devices as asked for, by the way that needs no nbd.ko."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        return
    times = []
    try:
        for i in range(DEVICES):
            times.append(timed([CAIRN, "--socket", daemon.control, "attach",
                                f"file://{place.path}/piece-{i}", "--name", f"device-{i}"]))
        facts.append(f"{DEVICES} devices attached beside {count(daemon) - DEVICES} exports: the "
                     f"first in {times[0]:.0f} ms, the last in {times[-1]:.0f} ms")
    except servers.Unavailable as why:
        facts.append(f"{len(times)} devices attached, then: {why}")
    for i in range(len(times)):
        call([CAIRN, "--socket", daemon.control, "detach", f"device-{i}"])


def ratio_lines(book, pairs):
    """Ratios of the two in each round, since they ran one after the other."""
    lines = []
    for small, big in pairs:
        for field, word in (("server_us_per_read", "server µs"), ("iops", "reads/s")):
            a, b = ([r[field] for r in book.rows if r["cell"] == cell] for cell in (small, big))
            if a and b:
                lines.append([f"{big} / {small}, {word}",
                              tables.spread([y / x for x, y in zip(a, b)])])
    return lines


def run_in(lab, place):
    book, facts = Book("scale"), []
    cells, pair = few_and_many(lab, place, facts)
    cells.update(large(lab, place, facts))
    for round_ in range(ROUNDS):
        order = list(cells)
        for cell in order if round_ % 2 == 0 else reversed(order):
            book.add("cairn", cell, round_, cells[cell]())
    how_long(pair, facts)
    attached(pair[1], place, facts)
    names = list(cells)
    grid = [[c, *(tables.spread(tables.median_of(book.rows, "cairn", c, f)[0])
                  for f in ("server_us_per_read", "iops"))] for c in names]
    tables.print_grid(f"Scale: resident 4 KiB reads, QD32, {DATA >> 20} MiB of data",
                      ["server µs a read", "reads/s"], grid)
    one, many, readers, of_many = names[:4]
    pairs = [(one, many), (readers, of_many)]
    pairs += [(f"1 GiB, {kind}", c) for kind in STRIPS for c in names[4:]
              if c.endswith(kind) and not c.startswith("1 GiB")]
    tables.print_grid("Scale: ratios within each round (wanted: at most 1.1, at least 0.9)",
                      ["median (least–most)"], ratio_lines(book, pairs))
    print()
    for fact in facts:
        print(f"  {fact}")
    print(f"\n  {os.path.relpath(book.path, servers.ROOT)}")


def run(lab):
    place = Place(lab)
    try:
        run_in(lab, place)
    except servers.Unavailable as why:
        skip("scale", why)
    finally:
        for daemon in place.daemons:
            servers.end(daemon.pid)
        place.remove()
