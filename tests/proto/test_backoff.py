"""Pauses between attempts."""

from __future__ import annotations

from splitpoint.proto.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    pauses = Backoff(0.5, 3.0)
    assert [pauses.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pauses.longest_s = 5.0
    assert [pauses.next_s() for _ in range(2)] == [5.0, 5.0]
    pauses.longest_s = 1.0
    assert pauses.next_s() == 1.0
    pauses.reset()
    assert pauses.next_s() == 0.5
