# SPDX-License-Identifier: Apache-2.0
"""Rounds of cells as tables: medians with the least and the most, and ratios between servers."""
import statistics


def number(x):
    if x >= 100:
        return f"{x:.0f}"
    return f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def spread(values):
    if not values:
        return "-"
    least, most = number(min(values)), number(max(values))
    return f"{number(statistics.median(values))} ({least}–{most})"


def median_of(rows, server, cell, field):
    values = [r[field] for r in rows if (r["server"], r["cell"]) == (server, cell) and field in r]
    return values, statistics.median(values) if values else None


def print_grid(title, head, lines):
    grid = [["", *head], *lines]
    width = [max(len(line[i]) for line in grid) for i in range(len(head) + 1)]
    print(f"\n{title}")
    for line in grid:
        first, *rest = (text.ljust(w) for text, w in zip(line, width))
        print("  ".join(["  " + first, *rest]).rstrip())


def print_medians(title, rows, servers, cells, field):
    """@field: a name, or a function of the cell's name that gives one."""
    name = field if callable(field) else lambda cell: field
    lines = [[s, *(spread(median_of(rows, s, c, name(c))[0]) for c in cells)] for s in servers]
    print_grid(title, cells, lines)


def ratio(rows, subject, peer, cell, field):
    ours = median_of(rows, subject, cell, field)[1]
    theirs = median_of(rows, peer, cell, field)[1]
    return f"{ours / theirs:.2f}" if ours and theirs else "-"


def best(rows, servers, cell, field):
    """The server with the highest median, or None."""
    medians = {s: median_of(rows, s, cell, field)[1] for s in servers}
    return max((s for s in servers if medians[s]), key=medians.get, default=None)


def print_ratios(title, rows, subject, servers, cells, field, peers=()):
    """With a line for the best of @peers in each cell."""
    if not any(r["server"] == subject for r in rows):
        return
    name = field if callable(field) else lambda cell: field
    lines = [[f"{subject} / {s}", *(ratio(rows, subject, s, c, name(c)) for c in cells)]
             for s in servers if s != subject]
    if peers:
        lines.append([f"{subject} / the best", *(
            ratio(rows, subject, best(rows, peers, c, name(c)), c, name(c)) for c in cells)])
    print_grid(title, cells, lines)
