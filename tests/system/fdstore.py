#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A small stand-in for systemd: starts a program with NOTIFY_SOCKET, keeps the descriptors that it
stores, and starts it again with them (LISTEN_FDS) whenever it was killed.

fdstore.py DIR PROGRAM [ARGUMENT...]
    DIR/pid     of the program that runs now
    DIR/stored  how many descriptors are stored
    DIR/starts  how many times it was started
It ends, with the program's status, when that ends by itself."""
import array
import ctypes
import os
import signal
import socket
import sys

PR_SET_CHILD_SUBREAPER = 36
LISTEN_FDS_START = 3

where, program = sys.argv[1], sys.argv[2:]
stored = []  # (name, descriptor): in the order in which they came


def put(name, value):
    with open(f"{where}/{name}.new", "w") as f:
        f.write(f"{value}\n")
    os.rename(f"{where}/{name}.new", f"{where}/{name}")


def same(a, b):
    a, b = os.fstat(a), os.fstat(b)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def notified(sock):
    room = socket.CMSG_SPACE(253 * 4)
    text, ancillary, _, _ = sock.recvmsg(65536, room)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) // 4 * 4])
    said = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
    name = said.get("FDNAME", "stored")
    assert ":" not in name and name.isprintable() and len(name) < 256, name
    if said.get("FDSTOREREMOVE") == "1":
        for entry in [e for e in stored if e[0] == name]:
            os.close(entry[1])
            stored.remove(entry)
    for fd in fds:
        if said.get("FDSTORE") == "1" and not any(same(fd, e[1]) for e in stored):
            stored.append((name, fd))
        else:
            os.close(fd)
    put("stored", len(stored))


def start(sock):
    env = dict(os.environ, NOTIFY_SOCKET=sock.getsockname())
    names = [e[0] for e in stored]
    pid = os.fork()
    if pid:
        return pid
    fds = [os.dup2(e[1], 500 + i, inheritable=False) for i, e in enumerate(stored)]
    for i, fd in enumerate(fds):
        os.dup2(fd, LISTEN_FDS_START + i, inheritable=True)
    if names:
        env.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
    os.execvpe(program[0], program, env)


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what it leaves is ours to reap
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(f"{where}/notify")
    sock.settimeout(0.05)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    starts = 0
    while True:
        pid = start(sock)
        starts += 1
        put("starts", starts)
        put("pid", pid)
        status = None
        while status is None:
            try:
                notified(sock)
            except TimeoutError:
                pass
            try:
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    status = ended[1] if ended[0] == pid else status
            except ChildProcessError:
                pass
        sock.setblocking(False)  # what it said before it ended
        try:
            while True:
                notified(sock)
        except BlockingIOError:
            sock.settimeout(0.05)
        if not os.WIFSIGNALED(status):
            put("ended", os.waitstatus_to_exitcode(status))
            return os.waitstatus_to_exitcode(status)


sys.exit(main())
