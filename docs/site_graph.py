"""Draws a graph of imports as SVG, so that a reader of the site fetches nothing to see it.

Every node stands below all that lead to it. Arrows that follow from others are left out.
"""

from __future__ import annotations

import re
from itertools import pairwise

BOX, HIGH, GAP, DOWN = 104, 30, 26, 74  # of a node, its height, between nodes and between levels
EDGE = re.compile(r"^ *(\w+)(?: --> (\w+))?$", re.MULTILINE)


def svg_of(mermaid: str) -> str:
    """The drawing of a mermaid `graph TD` of nodes and arrows without labels."""
    below: dict[str, set[str]] = {}
    for first, second in EDGE.findall(mermaid.partition("\n")[2]):
        below.setdefault(first, set()).update({second} - {""})
        if second:
            below.setdefault(second, set())
    edges = [(a, b) for a in below for b in sorted(_direct(a, below))]
    level = {node: _depth(node, edges) for node in below}
    ways = [_way(a, b, level) for a, b in edges]
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for node in [*below, *dict.fromkeys(point for way in ways for point in way[1:-1])]:
        rows[level.get(node, int(node.rpartition("@")[2]) if "@" in node else 0)].append(node)
    x = _places(rows, ways)
    return _drawn(rows, ways, x)


def _direct(node: str, below: dict[str, set[str]]) -> set[str]:
    """What it leads to and no other way does."""
    return {b for b in below[node] if not any(b in _all(o, below) for o in below[node] - {b})}


def _all(node: str, below: dict[str, set[str]]) -> set[str]:
    return below[node].union(*(_all(other, below) for other in below[node]))


def _depth(node: str, edges: list[tuple[str, str]]) -> int:
    return max((1 + _depth(a, edges) for a, b in edges if b == node), default=0)


def _way(first: str, last: str, level: dict[str, int]) -> list[str]:
    """From node to node, through a point on each level in between."""
    between = range(level[first] + 1, level[last])
    return [first, *(f"{first}>{last}@{at}" for at in between), last]


def _places(rows: list[list[str]], ways: list[list[str]]) -> dict[str, float]:
    """The middle of each node and point: near the mean of its neighbours, apart from the others."""
    near: dict[str, list[str]] = {}
    for a, b in (pair for way in ways for pair in pairwise(way)):
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    x = {n: i * (BOX + GAP) - len(row) * (BOX + GAP) / 2 for row in rows for i, n in enumerate(row)}
    for _ in range(30):
        for row in rows:
            wish = {
                n: sum(x[o] for o in near[n]) / len(near[n]) if n in near else x[n] for n in row
            }
            row.sort(key=wish.__getitem__)
            for left, node in zip([None, *row], row, strict=False):
                x[node] = (
                    wish[node] if left is None else max(wish[node], x[left] + _apart(left, node))
                )
            shift = sum(wish[n] - x[n] for n in row) / len(row)
            x.update({n: x[n] + shift for n in row})
    first = min(x[n] - _half(n) for row in rows for n in row)
    return {node: place - first + 2 for node, place in x.items()}


def _half(node: str) -> float:
    return 8 if "@" in node else BOX / 2


def _apart(left: str, right: str) -> float:
    return _half(left) + _half(right) + GAP


def _drawn(rows: list[list[str]], ways: list[list[str]], x: dict[str, float]) -> str:
    y = {node: DOWN * i + HIGH / 2 + 2 for i, row in enumerate(rows) for node in row}
    wide = max(x[n] + _half(n) for row in rows for n in row) + 2
    high = DOWN * (len(rows) - 1) + HIGH + 4
    parts = [f'<svg class="rooms" viewBox="0 0 {wide:.0f} {high}" width="{wide:.0f}" role="img">']
    parts.append(
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    for way in ways:
        line = f"M{x[way[0]]:.0f} {y[way[0]] + HIGH / 2:.0f}"
        for a, b in pairwise(way):
            top = y[a] + (HIGH / 2 if a == way[0] else 0)
            end = y[b] - (HIGH / 2 if b == way[-1] else 0)
            middle = (top + end) / 2
            line += f"C{x[a]:.0f} {middle:.0f} {x[b]:.0f} {middle:.0f} {x[b]:.0f} {end:.0f}"
        parts.append(f'<path class="way" d="{line}" marker-end="url(#tip)"/>')
    for node in (node for row in rows for node in row if "@" not in node):
        left = x[node] - BOX / 2
        parts.append(
            f'<rect x="{left:.0f}" y="{y[node] - HIGH / 2:.0f}" width="{BOX}" height="{HIGH}" '
            f'rx="4"/><text x="{x[node]:.0f}" y="{y[node] + 5:.0f}">{node}</text>'
        )
    return "".join([*parts, "</svg>"])
