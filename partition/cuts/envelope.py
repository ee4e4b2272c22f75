"""Which split is cheapest at which bandwidth: all of them, with the places where they change.

At x ns per byte a split costs compute + x·bytes, a line over x. The least of all splits' lines is
concave, made of pieces that get flatter as x grows. All pieces are found with about two minimum
cuts each (Eisner and Severance, J. ACM 23(4), 1976): where two lines of the envelope cross, either
nothing is cheaper and they are neighbours, or a cut finds a line between them. Slopes, crossings
and cuts are integers and fractions: no piece is lost or made up by rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .min_cut import SplitProblem

MBPS_NS_PER_BYTE = 8000  # a byte takes 8000 ns at 1 Mbit/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A split that is the cheapest for links of `from_mbps` up to `to_mbps` (Mbit/s).

    It takes `compute_ns` on the device and sends `nbytes`.
    """

    on_edge: frozenset[int]
    compute_ns: int
    nbytes: int
    from_mbps: float
    to_mbps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    compute: int
    up: int
    on_edge: frozenset[int]


def bandwidth_envelope(problem: SplitProblem) -> tuple[Piece, ...]:
    """The cheapest splits for every bandwidth, from the slowest link to the fastest.

    The problem's compute costs are in ns, its `up` costs in bytes. The intervals join and cover
    (0, infinity).
    """
    lines = _least(_lines(problem))
    crossings = [_crossing(a, b) for a, b in pairwise(lines)]
    mbps = [MBPS_NS_PER_BYTE / float(x) for x in crossings]
    return tuple(
        Piece(
            on_edge=line.on_edge,
            compute_ns=line.compute,
            nbytes=line.up,
            from_mbps=slow,
            to_mbps=fast,
        )
        for line, slow, fast in zip(
            reversed(lines), [0.0, *reversed(mbps)], [*reversed(mbps), float("inf")], strict=True
        )
    )


def _lines(problem: SplitProblem) -> list[_Line]:
    """The lines of the envelope, and perhaps a few that touch it in one point."""

    def at(compute_weight: int, up_weight: int) -> _Line:
        on_edge = problem.cheapest(compute_weight, up_weight)
        compute, up = problem.parts_of(on_edge)
        return _Line(compute=compute, up=up, on_edge=on_edge)

    first, last = at(1, 0), at(0, 1)  # bytes for nothing, and nothing but bytes
    found = [first, last]
    open_pairs = [(first, last)]
    while open_pairs:
        left, right = open_pairs.pop()
        if left.up <= right.up:
            continue  # parallel: the dearer of them is sorted out at the end
        crossing = _crossing(left, right)
        weights = crossing.denominator, crossing.numerator
        between = at(*weights)
        if _total(between, weights) < _total(left, weights):
            found.append(between)
            open_pairs += [(left, between), (between, right)]
    return found


def _total(line: _Line, weights: tuple[int, int]) -> int:
    return weights[0] * line.compute + weights[1] * line.up


def _crossing(steep: _Line, flat: _Line) -> Fraction:
    return Fraction(flat.compute - steep.compute, steep.up - flat.up)


def _least(lines: Iterable[_Line]) -> list[_Line]:
    """Those that are the lowest on an interval of x > 0, by falling slope."""
    kept: list[_Line] = []
    for line in sorted(lines, key=lambda line: (line.compute, line.up)):
        # All lines before it start no higher, so it counts only if it is flatter.
        if kept and line.up >= kept[-1].up:
            continue
        while len(kept) > 1 and _crossing(kept[-2], line) <= _crossing(kept[-2], kept[-1]):
            kept.pop()
        kept.append(line)
    return kept
