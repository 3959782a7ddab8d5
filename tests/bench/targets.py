# SPDX-License-Identifier: Apache-2.0
"""What Cairn set out to reach, and whether the rows of this run do.

A target is a table, a text and how its figure comes from the rows: ratios are of medians, against the
best of the peers measured in the same rounds. A figure that this run has not is none, never met.
"""
import statistics

import tables

WARM_PEERS = ["nbdkit file", "nbd-server", "qemu-nbd"]
COLD_PEERS = ["nbdkit curl", "nbdkit curl x4", "curl + cow 1M", "qemu http", "rclone full"]
DELAY_MS = 20


def median(rows, server, cell, field):
    return tables.median_of(rows, server, cell, field)[1]


def against_best(peers, cell, field, fewer=False):
    """Ours / theirs; @fewer: the best peer is the one with the least."""

    def figure(rows):
        theirs = [m for m in (median(rows, p, cell, field) for p in peers) if m]
        ours = median(rows, "cairn", cell, field)
        return ours / (min if fewer else max)(theirs) if ours and theirs else None

    return figure


def against(server, peer, cell, field):
    def figure(rows):
        ours, theirs = (median(rows, s, cell, field) for s in (server, peer))
        return ours / theirs if ours and theirs else None

    return figure


def grown(small, big, field):
    """Of two of Cairn's cells that ran soon after each other: the median of the rounds' ratios."""

    def figure(rows):
        a, b = ({r["round"]: r[field] for r in rows if r["cell"] == c and field in r}
                for c in (small, big))
        ratios = [b[i] / a[i] for i in b if a.get(i)]
        return statistics.median(ratios) if ratios else None

    return figure


def of(cell, field, server="cairn", less=0):
    def figure(rows):
        ours = median(rows, server, cell, field)
        return None if ours is None else ours - less

    return figure


def most(limit):
    return lambda x: x <= limit, f"≤ {limit:g}"


def least(limit):
    return lambda x: x >= limit, f"≥ {limit:g}"


def warm():
    for cell, field, speed, cpu in [
            ("4K QD32", "kiops", 2, 0.4), ("4K QD32 x2", "kiops", 2.8, 0.35),
            ("4K QD32 x4", "kiops", 2.8, 0.35), ("4K QD1", "kiops", 0.95, 0.8),
            ("128K QD16", "MBps", 1.5, 0.6), ("128K QD16 x4", "MBps", 1.7, 0.6),
            ("1M QD16", "MBps", 1.4, 0.6)]:
        yield f"{cell}: speed / best peer", against_best(WARM_PEERS, cell, field), least(speed)
        yield (f"{cell}: server CPU a read / best peer",
               against_best(WARM_PEERS, cell, "server_us_per_read", fewer=True), most(cpu))


def cold():
    seq, small, large = "1M in order QD4", "4K random QD1", "128K random QD16"
    yield f"{seq}: speed / best peer", against_best(COLD_PEERS, seq, "MBps"), least(6)
    yield f"{seq}: data bytes / bytes read", of(seq, "data_x"), most(1.02)
    yield f"{small}: reads/s / best peer", against_best(COLD_PEERS, small, "iops"), least(0.95)
    yield f"{small}: p50 over the origin's delay, ms", of(small, "p50_ms", less=DELAY_MS), most(2)
    yield f"{small}: data bytes / bytes read", of(small, "data_x"), most(16)
    yield f"{large}: speed / best peer", against_best(COLD_PEERS, large, "MBps"), least(2)
    yield f"{large}: data bytes / bytes read", of(large, "data_x"), most(1.6)
    near = "0 ms, 1M in order"
    yield (f"{near}: speed / curl + cow 64K", against("cairn", "curl + cow 64K", near, "MBps"),
           least(1.2))
    yield (f"{near}: 2 fill threads / 1", against("cairn", "cairn 1 fill thread", near, "MBps"),
           (lambda x: x > 1, "> 1"))


def files():
    order, random = "erofs in order, 1 thread", "erofs random, 16 threads"
    yield f"{order}: speed / best peer", against_best(COLD_PEERS, order, "MBps"), least(2)
    yield f"{order}: data bytes / bytes of the files", of(order, "data_x"), most(1.3)
    yield (f"{random}: files/s a thread / best peer",
           against_best(COLD_PEERS, random, "files_a_thread"), least(3))


def attach():
    for fs in ("erofs", "ext4"):
        yield f"{fs}: GETs one after the other to the first file", of(fs, "chain"), most(6)


def scale():
    pairs = [("1 export", "1000 exports"), ("1 export, 64 readers", "64 of 1000, 64 readers")]
    pairs += [(f"1 GiB, {kind}", f"{length}, {kind}") for kind in ("extents", "blocks")
              for length in ("1 TiB", "64 TiB")]
    for small, big in pairs:
        yield f"{big} / {small}: server CPU a read", grown(small, big, "server_us_per_read"), \
            most(1.1)
        yield f"{small} / {big}: reads/s", grown(big, small, "iops"), most(1.1)


def store():
    for beside in ("4K on the disk", "4K at the origin, 20 ms"):
        yield (f"p99 of resident reads beside eight of {beside} / alone",
               grown("none", beside, "p99_us"), most(2))
    yield "1 TiB of sparse content is opened, s", of("1 objects", "seconds", "open"), most(2)
    yield "longest resident read while 100 GiB go, ms", of("reads", "longest_ms", "evict"), most(20)


TARGETS = {"warm": warm, "cold": cold, "files": files, "attach": attach, "store": store,
           "scale": scale}


def check(table, rows, failed=None):
    """Lines of a table: the target, its bound, the figure, and the verdict. A table that has no
    targets here checks itself: @failed says how."""
    if table not in TARGETS:
        yield [table, "", "", f"FAILED: {failed}" if failed else "it ran"]
        return
    for text, figure, (met, bound) in TARGETS[table]():
        value = figure(rows)
        if value is None:
            yield [f"{table}: {text}", bound, "-", "not measured"]
        else:
            yield [f"{table}: {text}", bound, f"{value:.3f}", "ok" if met(value) else "MISSED"]
