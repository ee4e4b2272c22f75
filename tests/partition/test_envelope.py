"""All pieces of the bandwidth envelope against all splits, one by one."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import pytest
from split_problems import chain, every_split, random_problem
from splitpoint.partition.cuts import envelope
from splitpoint.partition.cuts.envelope import Piece, bandwidth_envelope
from splitpoint.partition.cuts.min_cut import SplitProblem


def lines_of(problem: SplitProblem) -> set[tuple[int, int]]:
    """(compute, bytes) of every split that can run."""
    return {problem.parts_of(split.on_edge) for split in every_split(problem)}


def walked(lines: set[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[Fraction]]:
    """The winners from x = 0 upwards and where they change, by walking to the next crossing."""
    now = min(lines)
    winners, changes = [now], []
    while flatter := [line for line in lines if line[1] < now[1]]:
        crossings = [(Fraction(c - now[0], now[1] - b), b) for c, b in flatter]
        x, least = min(crossings)
        now = (now[0] + int(x * (now[1] - least)), least)
        winners.append(now)
        changes.append(x)
    return winners, changes


def test_every_piece_of_small_graphs() -> None:
    rng = random.Random(1)
    many = 0
    for _ in range(150):
        size = rng.randint(1, 9)
        problem = random_problem(rng, size)
        if rng.random() < 0.3:  # tensors that get smaller: many places to win
            narrowing = sorted((rng.randint(1, 99) for _ in range(size)), reverse=True)
            problem = chain([rng.randint(1, 9) for _ in range(size)], narrowing)
        winners, changes = walked(lines_of(problem))
        pieces = bandwidth_envelope(problem)[::-1]  # by falling bandwidth: by rising x
        assert [(p.compute_ns, p.nbytes) for p in pieces] == winners
        assert [p.from_mbps for p in pieces[:-1]] == pytest.approx([8000 / x for x in changes])
        assert (pieces[-1].from_mbps, pieces[0].to_mbps) == (0, float("inf"))
        for fast, slow in pairwise(pieces):
            assert fast.from_mbps == slow.to_mbps
        many += len(winners) > 2
    assert many > 20


def test_about_two_cuts_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = 0

    cheapest = SplitProblem.cheapest

    def counting(self: SplitProblem, compute_weight: int, up_weight: int) -> frozenset[int]:
        nonlocal cuts
        cuts += 1
        return cheapest(self, compute_weight, up_weight)

    monkeypatch.setattr(SplitProblem, "cheapest", counting)
    rng = random.Random(2)
    for _ in range(100):
        cuts = 0
        pieces = bandwidth_envelope(random_problem(rng, 25))
        assert cuts <= 2 * len(pieces) + 4


def test_units_and_ends() -> None:
    # On the device 20 ms; on the cloud 25,000 bytes: 20 ms at 10 Mbit/s.
    slow, fast = bandwidth_envelope(chain([20_000_000], [25_000]))
    assert slow == Piece(
        on_edge=frozenset({0}),
        compute_ns=20_000_000,
        nbytes=0,
        from_mbps=0,
        to_mbps=pytest.approx(10),
    )
    assert (fast.on_edge, fast.compute_ns, fast.nbytes) == (frozenset(), 0, 25_000)


def test_what_is_free_to_send_is_sent() -> None:
    (only,) = bandwidth_envelope(chain([1, 1], [0, 5]))
    assert (only.on_edge, only.nbytes) == (frozenset(), 0)


def test_three_lines_through_one_point_make_two_pieces() -> None:
    # (0, 20), (10, 10) and (20, 0) all cost 20 at x = 1: the middle one never wins alone.
    pieces = bandwidth_envelope(chain([10, 10], [20, 10]))
    assert [p.nbytes for p in pieces] == [0, 20]


def test_lines_that_only_touch_are_dropped() -> None:
    touching = [
        envelope._Line(compute=c, up=up, on_edge=frozenset())
        for c, up in [(0, 20), (10, 10), (20, 0), (0, 30), (20, 5)]
    ]
    assert [(line.compute, line.up) for line in envelope._least(touching)] == [(0, 20), (20, 0)]


def test_neighbours_cost_the_same_where_they_change() -> None:
    def cost_ns(piece: Piece, mbps: float) -> float:
        return piece.compute_ns + piece.nbytes * 8000 / mbps

    rng = random.Random(3)
    for _ in range(20):
        pieces = bandwidth_envelope(random_problem(rng, 30))
        for slow, fast in pairwise(pieces):
            at = slow.to_mbps
            assert cost_ns(slow, at) == pytest.approx(cost_ns(fast, at), rel=1e-9)
            assert slow.nbytes < fast.nbytes
