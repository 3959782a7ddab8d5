# SPDX-License-Identifier: Apache-2.0
"""The servers that a bench compares, the origin they read from, and the end of both.

A server is started on a socket in a scratch folder and serves one export. start() gives its pid,
the socket and the export's name. What was started is ended by its pid, also when the bench fails,
after its mounts were undone.
"""
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
TOOLS = os.path.join(BUILD, "bench")
CAIRN = os.path.join(BUILD, "cairn")
CAIRND = os.path.join(BUILD, "cairnd")

running = []  # pids, the latest last
undoing = []  # what takes down mounts and loop devices, the latest last


class Unavailable(Exception):
    """This server can't be measured here; the text says why."""


class Hung(Unavailable):
    """Not this time."""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Unavailable(f"{what} within {seconds} s")
        time.sleep(0.02)


def descendants_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = [int(p) for p in f.read().split()]
    except OSError:
        return []
    return children + [d for child in children for d in descendants_of(child)]


def kill(pid):
    """At once, with its children: for a server that hangs."""
    for p in [*descendants_of(pid), pid]:
        try:
            os.kill(p, signal.SIGKILL)
        except ProcessLookupError:
            pass


def end(pid):
    """TERM, after five seconds KILL; reap what is ours, and end what it left behind."""
    left = descendants_of(pid)
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + 5
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not alive(pid):
            break
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # a daemon is not ours to reap
    if pid in running:
        running.remove(pid)
    for child in left:
        if alive(child):
            end(child)


def run_quietly(*argv, seconds=10):
    """True if it worked, and in time. One that waits in the kernel is left there."""
    try:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        return p.wait(timeout=seconds) == 0
    except OSError:
        return False
    except subprocess.TimeoutExpired:
        p.kill()
        return False


def undo(down_to=0):
    """All of it, whatever fails."""
    while len(undoing) > down_to:
        try:
            undoing.pop()()
        except Exception as failure:  # noqa: BLE001
            print(f"bench: {type(failure).__name__}: {failure}", file=sys.stderr)


def end_all():
    undo()
    for pid in reversed(running.copy()):
        end(pid)


def launch(argv, log, **kwargs):
    with open(log, "ab") as err:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err, **kwargs)
    running.append(p.pid)
    return p.pid


def last_line(path):
    with open(path, errors="replace") as f:
        lines = f.read().splitlines()
    return lines[-1] if lines else "nothing in its log"


def need(program):
    if not shutil.which(program) and not os.access(program, os.X_OK):
        raise Unavailable(f"{os.path.basename(program)} is not installed")


def mounts():
    """(what, where), the latest last."""
    with open("/proc/mounts") as f:
        return [tuple(line.split()[:2]) for line in f]


def listens(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


class Scratch:
    """A folder on the disk for stores and overlays, and a short one for sockets."""

    def __init__(self):
        os.makedirs(TOOLS, exist_ok=True)
        self.disk = tempfile.mkdtemp(prefix="tmp.", dir=TOOLS)
        self.short = tempfile.mkdtemp(prefix="cairn-bench.", dir="/tmp")
        for folder in (self.disk, self.short):
            os.chmod(folder, 0o755)  # the worker is another user
        atexit.register(self.remove)
        atexit.register(end_all)  # runs first
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sig, lambda number, frame: exit(128 + number))

    def remove(self):
        for _, point in reversed(mounts()):  # of a daemon that was killed
            if point.startswith((self.disk + "/", self.short + "/")):
                run_quietly("umount", "-l", point)
        shutil.rmtree(self.disk, ignore_errors=True)
        shutil.rmtree(self.short, ignore_errors=True)

    def fresh(self, name):
        path = os.path.join(self.disk, name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        return path


class Origin:
    """tests/bench/origin serving one folder."""

    def __init__(self, folder, options=()):
        argv = [os.path.join(TOOLS, "origin"), *options, folder]
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        running.append(p.pid)
        self.pid = p.pid
        self.url = p.stdout.readline().strip()
        p.stdout.close()

    def ask(self, path):
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=30) as answer:
            return json.load(answer)

    def set(self, delay_ms, rate):
        self.ask(f"__set?delay_ms={delay_ms}&rate={rate}")


class Server:
    """One running server; `folders` holds what should be in the page cache for a warm read."""

    def __init__(self, scratch, name):
        self.name = name
        self.scratch = scratch
        self.socket = os.path.join(scratch.short, "s.sock")
        self.log = os.path.join(scratch.disk, f"{name.replace(' ', '-')}.log")
        self.export = ""
        self.folders = []
        self.file = None  # the image as a file, where there is one
        self.undo_from = len(undoing)
        for name in os.listdir(scratch.short):  # of the server before
            if name.endswith(".sock"):
                os.unlink(os.path.join(scratch.short, name))

    def run(self, argv, **kwargs):
        need(argv[0])
        self.pid = launch(argv, self.log, **kwargs)
        self.wait_for_socket()

    def wait_for_socket(self):
        def ready():
            if not alive(self.pid):
                raise Unavailable(f"{self.name} ended at once: {last_line(self.log)}")
            return os.path.exists(self.socket)

        wait_for(ready, 20, f"{self.name} made no socket")

    @property
    def uri(self):
        return f"nbd+unix:///{urllib.parse.quote(self.export, safe='')}?socket={self.socket}"

    def stop(self):
        undo(self.undo_from)
        end(self.pid)


# Peers.


def nbdkit(server, *arguments):
    work = server.scratch.fresh("overlay")
    environment = {**os.environ, "TMPDIR": work}  # where the cow filter keeps its overlay
    server.run(["nbdkit", "-f", "-U", server.socket, *arguments], env=environment)


def nbdkit_file(server, image, url):
    nbdkit(server, "-r", "file", image)


def nbdkit_curl(server, image, url):
    nbdkit(server, "-r", "curl", url)


def nbdkit_curl_cow(size):
    def up(server, image, url):
        nbdkit(server, "--filter=cow", "curl", url, "cow-on-read=true", f"cow-block-size={size}")

    return up


def qemu_http(server, image, url):
    """It hangs at times, and then doesn't end when told to."""
    server.run(["qemu-nbd", "-r", "-t", "-e", "16", "-k", server.socket, "--image-opts",
                f"driver=raw,file.driver=http,file.url={url}"])


def rclone_full(server, image, url):
    """A mount, whose file nbdkit serves so that all are read in the same way."""
    need("rclone")
    base, name = url.rsplit("/", 1)
    point = os.path.join(server.scratch.short, "rclone")
    os.makedirs(point, exist_ok=True)
    pid = launch(["rclone", "mount", ":http:", point, "--http-url", base, "--config", os.devnull,
                  "--cache-dir", server.scratch.fresh("rclone"), "--vfs-cache-mode", "full",
                  "--dir-cache-time", "1h", "--read-only"], server.log)

    def down():
        run_quietly("fusermount3", "-u", point) or run_quietly("fusermount3", "-uz", point)
        end(pid)

    undoing.append(down)
    server.file = os.path.join(point, name)
    wait_for(lambda: os.path.exists(server.file) or not alive(pid), 20, "rclone mounted nothing")
    if not alive(pid):
        raise Unavailable(f"rclone ended: {last_line(server.log)}")
    nbdkit(server, "-r", "file", server.file)
    undoing.append(lambda: end(server.pid))


def qemu_nbd(server, image, url):
    server.run(["qemu-nbd", "-r", "-t", "-e", "16", "-k", server.socket, "-f", "raw",
                "--cache=writeback", "--aio=io_uring", image])


def nbd_server(server, image, url):
    """It serves several clients only as a daemon, so its pid comes from its file."""
    need("nbd-server")
    conf, pid_file = (os.path.join(server.scratch.disk, f"nbd-server.{x}") for x in ("conf", "pid"))
    with open(conf, "w") as f:
        f.write(f"[generic]\nunixsock={server.socket}\n[x]\nexportname={image}\nreadonly=true\n")
    if os.path.exists(pid_file):
        os.unlink(pid_file)
    with open(server.log, "ab") as err:
        subprocess.run(["nbd-server", "-C", conf, "-p", pid_file], stdout=err, stderr=err,
                       timeout=20)
    wait_for(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), 20,
             "nbd-server wrote no pid")
    with open(pid_file) as f:
        server.pid = int(f.read())
    running.append(server.pid)
    server.export = "x"
    server.wait_for_socket()


def refserver(mode):
    def up(server, image, url):
        server.run([os.path.join(TOOLS, "refserver"), mode, server.socket, image])

    return up


# Cairn.


def cairn_config(server, store, settings=""):
    path = os.path.join(server.scratch.disk, "cairnd.ini")
    with open(path, "w") as f:
        f.write(f"[daemon]\ncontrol_socket = {server.control}\n"
                f"runtime_dir = {server.scratch.short}/run\n"
                f"[nbd]\nsocket = {server.scratch.short}/nbd.sock\n"
                f"[store]\npath = {store}\nsize = 8GiB\n{settings}")
    return path


def wait_for_cairnd(server):
    wait_for(lambda: listens(server.control) or not alive(server.pid), 20, "cairnd was not ready")
    if not alive(server.pid):
        raise Unavailable(f"cairnd ended: {last_line(server.log)}")


def cairn_export(server, url):
    wait_for_cairnd(server)
    argv = [CAIRN, "--socket", server.control, "export", url, "--name", "bench"]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if p.returncode != 0:
        raise Unavailable(f"cairn export: {p.stderr.strip() or last_line(server.log)}")
    return p.stdout.strip().splitlines()[-1]


def cairn_start(server, settings=""):
    """A daemon with a store that is new each time."""
    for program in (CAIRND, CAIRN):
        if not os.access(program, os.X_OK):
            raise Unavailable(f"{os.path.relpath(program, ROOT)} is not built")
    store = server.scratch.fresh("store")
    os.makedirs(f"{server.scratch.short}/run", exist_ok=True)
    server.control = f"{server.scratch.short}/control.sock"
    server.pid = launch([CAIRND, "-c", cairn_config(server, store, settings)], server.log)
    server.folders = [store]
    wait_for_cairnd(server)


def cairn(settings=""):
    def up(server, image, url):
        cairn_start(server, settings)
        uri = urllib.parse.urlsplit(cairn_export(server, url))
        server.export = urllib.parse.unquote(uri.path.lstrip("/"))
        server.socket = urllib.parse.parse_qs(uri.query)["socket"][0]

    return up


WAYS = {
    "cairn": cairn(),
    "cairn, no export": lambda server, image, url: cairn_start(server),
    "cairn 1 fill thread": cairn("[fill]\nthreads = 1\n"),
    "nbdkit file": nbdkit_file,
    "nbd-server": nbd_server,
    "qemu-nbd": qemu_nbd,
    "ref pread": refserver("pread"),
    "ref mmap": refserver("mmap"),
    "nbdkit curl": nbdkit_curl,
    "nbdkit curl x4": nbdkit_curl,  # read over four connections
    "curl + cow 1M": nbdkit_curl_cow("1M"),
    "curl + cow 64K": nbdkit_curl_cow("64K"),
    "qemu http": qemu_http,
    "rclone full": rclone_full,
}


def start(scratch, name, image, url):
    server = Server(scratch, name)
    known = len(running)
    try:
        WAYS[name](server, image, url)
    except BaseException:
        undo(server.undo_from)
        for pid in reversed(running[known:]):
            end(pid)
        raise
    return server
