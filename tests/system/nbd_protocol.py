#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""NBD as proto.md has it, spoken over raw sockets to a running server.

    nbd_protocol.py SOCKET EXPORT IMAGE_FILE

IMAGE_FILE holds the export's bytes (at least 1 MiB). Prints `ok - sentence` or `not ok - sentence`
for each test; exit status 1 if any failed.
"""
import os
import random
import socket
import struct
import sys
import threading
import time

SOCKET, EXPORT, IMAGE = sys.argv[1:4]
NAME = EXPORT.encode()
IMAGE_FD = os.open(IMAGE, os.O_RDONLY)
IMAGE_LEN = os.fstat(IMAGE_FD).st_size

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_CONTEXT, SET_CONTEXT = 1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, CONTEXT = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN, TOO_BIG = (0x80000000 | n for n in (1, 3, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
DF, REQ_ONE = 4, 8
EPERM, EIO, EINVAL, EOVERFLOW = 1, 5, 22, 75
MAX = 32 << 20


def image(off, length):
    data = os.pread(IMAGE_FD, length, off)
    return data + bytes(length - len(data))  # the device's tail is zeros


def string(s):
    return struct.pack(">I", len(s)) + s


def go_data(name, *infos):
    return string(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def context_data(name, *queries):
    return string(name) + struct.pack(">I", len(queries)) + b"".join(string(q) for q in queries)


class Client:
    def __init__(self, flags=FIXED_NEWSTYLE | NO_ZEROES):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(15)
        self.s.connect(SOCKET)
        self.greeting = self.take(18)
        if flags is not None:
            self.s.sendall(struct.pack(">I", flags))
        self.structured = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def take(self, n):
        got = bytearray()
        while len(got) < n:
            more = self.s.recv(min(n - len(got), 1 << 20))
            if not more:
                raise EOFError(f"server hung up, {n - len(got)} bytes early")
            got += more
        return bytes(got)

    def hung_up(self):
        try:
            while self.s.recv(65536):
                pass
            return True
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False

    # handshake
    def send_option(self, option, data=b"", length=None):
        length = len(data) if length is None else length
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", option, length) + data)

    def option_reply(self, option):
        magic, opt, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == 0x3E889045565A9, hex(magic)
        assert opt == option, opt
        return kind, self.take(length)

    def option(self, option, data=b""):
        """All replies up to the acknowledgement or refusal, and which of them that was."""
        self.send_option(option, data)
        replies = []
        while True:
            kind, payload = self.option_reply(option)
            if kind == ACK or kind & 0x80000000:
                return kind, replies
            replies.append((kind, payload))

    def agree_on_structured(self):
        assert self.option(STRUCTURED)[0] == ACK
        self.structured = True

    def go(self, name=NAME, structured=False, context=False):
        if structured or context:
            self.agree_on_structured()
        if context:
            kind, replies = self.option(SET_CONTEXT, context_data(name, b"base:allocation"))
            assert kind == ACK and len(replies) == 1
            self.context = struct.unpack(">I", replies[0][1][:4])[0]
        kind, replies = self.option(GO, go_data(name))
        assert kind == ACK, hex(kind)
        for _, data in replies:
            if data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return self

    # transmission
    def ask(self, kind, off=0, length=0, flags=0, cookie=7, payload=b""):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, off, length) + payload)

    def simple(self):
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698, hex(magic)
        return error, cookie

    def chunk(self):
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.take(20))
        assert magic == 0x668E33EF, hex(magic)
        return flags, kind, cookie, self.take(length)

    def read(self, off, length, flags=0):
        """Bytes, or the error's number."""
        self.ask(READ, off, length, flags)
        if not self.structured:
            error, cookie = self.simple()
            assert cookie == 7
            return error or self.take(length)
        data = bytearray(length)
        while True:
            done, kind, cookie, payload = self.chunk()
            assert cookie == 7
            if kind & 0x8000:
                assert done & 1
                return struct.unpack(">I", payload[:4])[0]
            if kind == 1:
                at = struct.unpack(">Q", payload[:8])[0] - off
                data[at:at + len(payload) - 8] = payload[8:]
            if done & 1:
                return bytes(data)

    def lives(self):
        return self.read(4096, 5000) == image(4096, 5000)


TESTS = []


def sentence(f):
    TESTS.append(f)
    return f


# Handshake


@sentence
def greeting_is_fixed_newstyle_with_no_zeroes():
    with Client(None) as c:
        return c.greeting == b"NBDMAGICIHAVEOPT" + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES)


@sentence
def client_without_fixed_newstyle_is_dropped():
    with Client(0) as c:
        return c.hung_up()


@sentence
def client_with_unknown_flags_is_dropped():
    with Client(0x80000003) as c:
        return c.hung_up()


@sentence
def client_that_speaks_http_is_dropped():
    with Client(None) as c:
        c.s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return c.hung_up()


@sentence
def go_offers_a_read_only_shared_export_of_the_right_size():
    with Client().go() as c:
        # HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN, SEND_CACHE; no FLUSH, no TRIM, no DF
        return c.flags == 1 | 2 | 1 << 8 | 1 << 10 and c.size // 4096 == -(-IMAGE_LEN // 4096)


@sentence
def block_size_is_at_least_1_preferably_65536_at_most_32_mib():
    with Client() as c:
        kind, replies = c.option(GO, go_data(NAME, 3))
        sizes = [struct.unpack(">III", d[2:]) for _, d in replies if d[:2] == b"\0\3"]
        return kind == ACK and sizes == [(1, 65536, MAX)]


@sentence
def info_tells_the_name_and_does_not_begin_transmission():
    with Client() as c:
        kind, replies = c.option(INFO, go_data(NAME, 1, 2, 1))
        names = [d[2:] for _, d in replies if d[:2] == b"\0\1"]
        return kind == ACK and names == [NAME] and c.go().lives()


@sentence
def export_name_is_answered_without_padding_after_no_zeroes():
    with Client() as c:
        c.send_option(EXPORT_NAME, NAME)
        size, flags = struct.unpack(">QH", c.take(10))
        return size >= IMAGE_LEN and flags & 3 == 3 and c.lives()


@sentence
def export_name_is_answered_with_124_zeroes_otherwise():
    with Client(FIXED_NEWSTYLE) as c:
        c.send_option(EXPORT_NAME, NAME)
        return c.take(134)[10:] == bytes(124) and c.lives()


@sentence
def export_name_that_is_not_there_hangs_up():
    with Client() as c:
        c.send_option(EXPORT_NAME, b"no such export")
        return c.hung_up()


@sentence
def unknown_export_is_refused_and_the_next_option_understood():
    with Client() as c:
        return c.option(GO, go_data(b"no such export"))[0] == UNKNOWN and c.go().lives()


@sentence
def list_names_the_export():
    with Client() as c:
        kind, replies = c.option(LIST)
        names = [d[4:4 + struct.unpack(">I", d[:4])[0]] for k, d in replies if k == SERVER]
        return kind == ACK and NAME in names and c.go().lives()


@sentence
def list_with_data_is_invalid():
    with Client() as c:
        return c.option(LIST, b"x")[0] == INVALID and c.go().lives()


@sentence
def abort_is_acknowledged_then_hangs_up():
    with Client() as c:
        return c.option(ABORT)[0] == ACK and c.hung_up()


@sentence
def unknown_options_are_refused_with_framing_kept():
    with Client() as c:
        for option in (0, 4, STARTTLS, 11, 12, 0xFFFFFFFF):
            if c.option(option, bytes(option % 100))[0] != UNSUP:
                return False
        return c.go().lives()


@sentence
def go_with_lengths_that_do_not_add_up_is_invalid():
    bad = [b"", b"\0\0\0", string(NAME), string(NAME) + b"\0", struct.pack(">IH", 0xFFFFFFFF, 0),
           go_data(NAME) + b"x", string(NAME) + b"\0\5\0\0"]
    with Client() as c:
        return all(c.option(o, d)[0] == INVALID for d in bad for o in (GO, INFO)) and c.go().lives()


@sentence
def overlong_export_names_are_refused():
    with Client() as c:
        return (c.option(GO, go_data(b"n" * 4096))[0] == UNKNOWN
                and c.option(GO, go_data(b"n" * 4097))[0] == TOO_BIG
                and c.option(GO, go_data(b"n\0n"))[0] == INVALID and c.go().lives())


@sentence
def oversized_option_is_skipped_and_refused():
    with Client() as c:
        return c.option(GO, bytes(1 << 20))[0] == TOO_BIG and c.go().lives()


@sentence
def option_of_4_gib_hangs_up():
    with Client() as c:
        c.send_option(GO, b"", 0xFFFFFFFF)
        return c.hung_up()


@sentence
def structured_reply_with_data_is_invalid():
    with Client() as c:
        return c.option(STRUCTURED, b"x")[0] == INVALID and c.go().lives()


@sentence
def contexts_without_structured_replies_are_invalid():
    with Client() as c:
        return (c.option(LIST_CONTEXT, context_data(NAME))[0] == INVALID
                and c.option(SET_CONTEXT, context_data(NAME, b"base:allocation"))[0] == INVALID
                and c.go().lives())


@sentence
def contexts_are_listed_for_no_query_and_for_base():
    with Client() as c:
        c.agree_on_structured()
        for query, found in ((None, 1), (b"base:", 1), (b"base:allocation", 1), (b"base:other", 0),
                             (b"qemu:", 0), (b"no colon", 0)):
            kind, replies = c.option(LIST_CONTEXT, context_data(NAME, *([query] if query else [])))
            if kind != ACK or len(replies) != found:
                return False
        return c.go().lives()


@sentence
def context_must_be_set_by_its_whole_name():
    with Client() as c:
        c.agree_on_structured()
        for queries, found in (((), 0), ((b"base:",), 0), ((b"x:y", b"base:allocation"), 1)):
            kind, replies = c.option(SET_CONTEXT, context_data(NAME, *queries))
            if kind != ACK or len(replies) != found:
                return False
        return True


@sentence
def context_queries_that_do_not_add_up_are_invalid():
    with Client() as c:
        c.agree_on_structured()
        bad = [b"", string(NAME), string(NAME) + b"\xff\xff\xff\xff", context_data(NAME) + b"x",
               context_data(NAME, b"base:")[:-1], string(NAME) + b"\0\0\0\1\xff\xff\xff\xff"]
        return all(c.option(o, d)[0] == INVALID for d in bad for o in (LIST_CONTEXT, SET_CONTEXT))


@sentence
def context_of_an_unknown_export_is_refused():
    with Client() as c:
        c.agree_on_structured()
        return c.option(SET_CONTEXT, context_data(b"no such", b"base:allocation"))[0] == UNKNOWN


# Transmission


@sentence
def reads_of_any_alignment_bring_the_right_bytes():
    rng = random.Random(1)
    for structured in (False, True):
        with Client().go(structured=structured) as c:
            for length in (1, 511, 512, 4096, 5000, 16383, 16384, 65536, 200001, 1 << 20):
                for _ in range(4):
                    off = rng.randrange(max(1, c.size - length))
                    if c.read(off, length) != image(off, length):
                        return False
            if c.read(c.size - 512, 512) != image(c.size - 512, 512):
                return False
    return True


@sentence
def largest_read_is_answered():
    for structured in (False, True):
        with Client().go(structured=structured) as c:
            n = min(MAX, c.size)
            if c.read(0, n) != image(0, n):
                return False
    return True


@sentence
def pipelined_reads_are_each_answered_once():
    with Client().go() as c:
        rng = random.Random(2)
        asked, out = {}, b""
        for cookie in range(1000):
            asked[cookie] = rng.randrange(c.size - 20000), rng.randrange(1, 20000)
            out += struct.pack(">IHHQQI", 0x25609513, 0, READ, cookie, *asked[cookie])
        sender = threading.Thread(target=c.s.sendall, args=(out,))
        sender.start()
        good = True
        for _ in range(1000):
            error, cookie = c.simple()
            off, length = asked.pop(cookie)
            good &= error == 0 and c.take(length) == image(off, length)
        sender.join()
        return good


@sentence
def empty_read_succeeds():
    with Client().go() as c, Client().go(structured=True) as d:
        return c.read(0, 0) == b"" and c.lives() and d.read(0, 0) == b"" and d.lives()


@sentence
def reads_outside_the_export_are_einval():
    for structured in (False, True):
        with Client().go(structured=structured) as c:
            for off, length in ((c.size, 1), (c.size - 1, 2), (c.size + 4096, 4096), (1 << 63, 1),
                                ((1 << 64) - 1, 1), ((1 << 64) - 512, 1024)):
                if c.read(off, length) != EINVAL:
                    return False
            if not c.lives():
                return False
    return True


@sentence
def read_over_the_maximum_is_einval_and_with_df_eoverflow():
    with Client().go(structured=True) as c:
        if c.size <= MAX:
            return c.read(0, 0xFFFFFFFF) == EINVAL and c.lives()
        return c.read(0, MAX + 1) == EINVAL and c.read(0, MAX + 1, DF) == EOVERFLOW and c.lives()


@sentence
def df_is_offered_and_kept_with_structured_replies_only():
    with Client().go() as c, Client().go(structured=True) as d:
        if c.flags & 1 << 7 or not d.flags & 1 << 7:
            return False
        d.ask(READ, 0, 300000, DF)
        flags, kind, _, payload = d.chunk()
        return (flags == 1 and kind == 1 and payload[8:] == image(0, 300000)
                and c.read(0, 512, DF) == EINVAL and c.lives())


@sentence
def reads_with_unknown_flags_are_einval():
    with Client().go() as c:
        return all(c.read(0, 512, 1 << bit) == EINVAL for bit in range(16)) and c.lives()


@sentence
def write_is_refused_with_eperm_and_its_payload_consumed():
    for structured in (False, True):
        with Client().go(structured=structured) as c:
            for length in (0, 1, 4096, 1 << 20, 32 << 20):
                c.ask(WRITE, 0, length, 0, 7, bytes(length))
                if c.simple() != (EPERM, 7) or not c.lives():
                    return False
    return True


@sentence
def write_past_the_end_is_refused_with_eperm():
    with Client().go() as c:
        c.ask(WRITE, 1 << 62, 4096, 0, 7, bytes(4096))
        return c.simple() == (EPERM, 7) and c.lives()


@sentence
def write_of_4_gib_hangs_up():
    with Client().go() as c:
        c.ask(WRITE, 0, 0xFFFFFFFF)
        return c.hung_up()


@sentence
def trim_and_write_zeroes_are_refused_with_eperm():
    with Client().go() as c:
        for kind in (TRIM, WRITE_ZEROES):
            c.ask(kind, 0, 65536)
            if c.simple() != (EPERM, 7):
                return False
        return c.lives()


@sentence
def unknown_commands_and_flush_are_einval():
    with Client().go() as c:
        for kind in (FLUSH, 8, 9, 255, 65535):
            c.ask(kind, 0, 0)
            if c.simple() != (EINVAL, 7):
                return False
        return c.lives()


@sentence
def cache_is_acknowledged_inside_the_export_only():
    with Client().go() as c:
        c.ask(CACHE, 0, 65536)
        inside = c.simple()
        c.ask(CACHE, c.size, 1)
        return inside == (0, 7) and c.simple() == (EINVAL, 7) and c.lives()


@sentence
def block_status_without_its_context_is_einval():
    with Client().go() as c, Client().go(structured=True) as d:
        c.ask(BLOCK_STATUS, 0, 65536)
        d.ask(BLOCK_STATUS, 0, 65536)
        _, kind, _, payload = d.chunk()
        return (c.simple() == (EINVAL, 7) and c.lives() and kind == 0x8001
                and payload[:4] == struct.pack(">I", EINVAL) and d.lives())


def status_of(c, off, length, flags=0):
    c.ask(BLOCK_STATUS, off, length, flags)
    flags, kind, _, payload = c.chunk()
    assert flags & 1
    if kind & 0x8000:
        return struct.unpack(">I", payload[:4])[0]
    assert kind == 5 and struct.unpack(">I", payload[:4])[0] == c.context
    words = struct.unpack(f">{(len(payload) - 4) // 4}I", payload[4:])
    return list(zip(words[::2], words[1::2]))


@sentence
def block_status_covers_from_the_offset_and_not_past_the_request():
    with Client().go(context=True) as c:
        for off, length in ((0, 65536), (4096, 1 << 20), (c.size - 4096, 4096), (1, 1)):
            runs = status_of(c, off, length)
            if not runs or sum(n for n, _ in runs) > length or any(n == 0 for n, _ in runs):
                return False
            # zeros must be zeros
            for n, flags in runs:
                if flags & 2 and image(off, n) != bytes(n):
                    return False
                off += n
        return c.lives()


@sentence
def block_status_with_req_one_answers_one_run():
    with Client().go(context=True) as c:
        return len(status_of(c, 0, min(c.size, 1 << 30), REQ_ONE)) == 1 and c.lives()


@sentence
def unlawful_block_status_is_einval():
    with Client().go(context=True) as c:
        return (status_of(c, 0, 0) == EINVAL and status_of(c, c.size, 1) == EINVAL
                and status_of(c, 0, 4096, 1) == EINVAL and c.lives())


@sentence
def context_of_another_name_does_not_hold():
    with Client() as c:
        c.agree_on_structured()
        c.option(SET_CONTEXT, context_data(NAME, b"base:allocation"))
        c.option(SET_CONTEXT, context_data(b"no such", b"base:allocation"))
        assert c.option(GO, go_data(NAME))[0] == ACK
        c.context = None
        return status_of(c, 0, 4096) == EINVAL and c.lives()


@sentence
def wrong_request_magic_hangs_up():
    with Client().go() as c:
        c.s.sendall(bytes(28))
        return c.hung_up()


@sentence
def disc_answers_what_is_asked_then_hangs_up():
    with Client().go() as c:
        c.ask(READ, 0, 100000)
        c.ask(DISC)
        return c.simple() == (0, 7) and c.take(100000) == image(0, 100000) and c.hung_up()


@sentence
def half_messages_then_the_end_hurt_nobody():
    for cut in (0, 1, 4, 15, 19, 25):
        with Client(None) as c:
            c.s.sendall((struct.pack(">I", 3) + b"IHAVEOPT" + bytes(20))[:cut])
    for cut in (1, 27, 28, 29, 1000):
        with Client().go() as c:
            c.s.sendall((struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, 4096) + bytes(1000))[:cut])
    for _ in range(20):
        with Client().go() as c:
            c.ask(READ, 0, min(c.size, MAX))
            c.take(1000)
    with Client().go() as c:
        return c.lives()


@sentence
def requests_may_come_byte_by_byte():
    with Client().go() as c:
        for byte in struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, 123, 456):
            c.s.sendall(bytes([byte]))
            time.sleep(0.001)
        return c.simple() == (0, 7) and c.take(456) == image(123, 456)


@sentence
def random_bytes_hurt_nobody():
    rng = random.Random(3)
    for i in range(100):
        with Client(3 if i % 2 else None) as c:
            if i % 4 == 1:
                c.go(structured=True)
            try:
                for _ in range(10):
                    kind = rng.randrange(12)
                    c.s.sendall(rng.choice((
                        rng.randbytes(rng.randrange(100)),
                        b"IHAVEOPT" + struct.pack(">II", kind, rng.randrange(64)) + rng.randbytes(30),
                        struct.pack(">IHHQQI", 0x25609513, rng.randrange(16), kind, 1,
                                    rng.randrange(1 << 20), rng.randrange(1 << 16)))))
            except (BrokenPipeError, ConnectionResetError):
                pass
    with Client().go() as c:
        return c.lives()


@sentence
def two_hundred_connections_are_served_at_once():
    clients = [Client().go() for _ in range(200)]
    for i, c in enumerate(clients):
        c.ask(READ, i * 4096 % (c.size - 100000), 100000 if i % 2 else 4096)
    good = True
    for i, c in enumerate(clients):
        n = 100000 if i % 2 else 4096
        good &= c.simple() == (0, 7) and c.take(n) == image(i * 4096 % (c.size - 100000), n)
        c.s.close()
    return good


@sentence
def client_that_never_reads_does_not_hurt_another():
    deaf = [Client().go() for _ in range(4)]
    for c in deaf:
        request = struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 262144)
        c.s.setblocking(False)
        try:
            c.s.send(request * 400)
        except BlockingIOError:
            pass
    start = time.monotonic()
    with Client().go() as c:
        for i in range(100):
            if not c.lives():
                return False
    for c in deaf:
        c.s.close()
    return time.monotonic() - start < 10


def main():
    silent = Client(None)  # must be hung up on while the other tests run, or soon after
    silent_since = time.monotonic()
    failed = 0

    def report(good, name):
        nonlocal failed
        failed += not good
        print(("ok - " if good else "not ok - ") + name.replace("_", " "), flush=True)

    for test in TESTS:
        try:
            good = test()
        except Exception as e:  # a test that breaks is a test that failed
            print(f"# {test.__name__}: {type(e).__name__}: {e}")
            good = False
        report(good, test.__name__)
    report(silent.hung_up() and time.monotonic() - silent_since < 30,
           "client_that_says_nothing_is_dropped_in_time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
