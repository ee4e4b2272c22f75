"""What the engine says of its load is of now."""

from __future__ import annotations

import time

import pytest
from splitpoint.cloud.engine import _Recent


def test_a_queue_of_long_ago_is_not_said_to_be_one() -> None:
    recent, now = _Recent(), time.perf_counter()
    for _ in range(20):
        recent.add(now, queue_ms=500.0, slowdown=8.0)
    queue_ms, slowdown = recent.at(now + 0.5)
    assert queue_ms == pytest.approx(500, rel=0.01)
    assert slowdown == pytest.approx(8, rel=0.01)
    assert recent.at(now + 60) == pytest.approx((0.0, 1.0))
    recent.add(now + 60, queue_ms=0.0, slowdown=1.0)  # and the next batch does not bring it back
    assert recent.at(now + 60) == pytest.approx((0.0, 1.0))


def test_the_latest_batches_count() -> None:
    recent, now = _Recent(), time.perf_counter()
    recent.add(now, queue_ms=100.0, slowdown=2.0)
    first = recent.at(now)
    recent.add(now, queue_ms=100.0, slowdown=2.0)
    second = recent.at(now)
    assert 0 < first[0] < second[0] < 100
    assert 1 < first[1] < second[1] < 2
