"""Sinks in threads of their own: slow, broken and gone ones cost no frame."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from splitpoint.edge import Outcome, Result
from splitpoint.edge.sinks import behind
from splitpoint.edge.sinks.behind import Behind


class Slow:
    """Takes so long for each, and fails for those that it is told to."""

    def __init__(self, seconds: float = 0.0, fails: frozenset[int] = frozenset()) -> None:
        self._seconds, self._fails = seconds, fails
        self.taken: list[int] = []
        self.closed = 0
        self.threads: set[int] = set()

    def add(self, result: Result) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(self._seconds)
        if result.id in self._fails:
            raise OSError(28, "No space left on device")
        self.taken.append(result.id)

    def close(self) -> None:
        self.closed += 1


def result(number: int) -> Result:
    return Result(id=number, outcome=Outcome.LOCAL, boundary=0, codec="raw")


async def test_a_slow_sink_of_a_live_run_loses_the_oldest_and_delays_nothing() -> None:
    sink = Slow(0.02)
    one = Behind(sink, "disk", live=True, most=3)
    longest_s = 0.0
    for number in range(50):
        begun_s = time.perf_counter()
        await one.give(result(number))
        longest_s = max(longest_s, time.perf_counter() - begun_s)
        await asyncio.sleep(0.002)
    assert longest_s < 0.02
    await one.end()
    assert sink.closed == 1
    assert threading.get_ident() not in sink.threads
    assert sink.taken == sorted(sink.taken)
    assert sink.taken[-3:] == [47, 48, 49]  # what waits at the end is the newest
    assert one.given == len(sink.taken)
    assert one.given + one.lost == 50
    assert one.lost > 10


async def test_a_run_that_loses_nothing_waits_for_its_sink() -> None:
    sink = Slow(0.005)
    one = Behind(sink, "disk", live=False, most=2)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    for number in range(30):
        await one.give(result(number))
    await one.end()
    ticking.cancel()
    assert sink.taken == list(range(30))
    assert (one.given, one.lost) == (30, 0)
    assert ticks > 30  # the event loop went on meanwhile


async def test_what_it_raises_ends_a_run_that_loses_nothing() -> None:
    sink = Slow(fails=frozenset([2]))
    one = Behind(sink, "disk", live=False, most=1)
    for number in range(3):
        await one.give(result(number))
        await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        await one.give(result(3))
    await one.end()
    assert sink.taken == [0, 1]
    assert sink.closed == 1


async def test_what_it_raises_at_the_last_result_is_raised_by_its_end() -> None:
    one = Behind(Slow(0.01, frozenset([0])), "disk", live=False, most=1)
    await one.give(result(0))
    with pytest.raises(OSError, match="No space left"):
        await one.end()


async def test_a_live_run_goes_on_without_it_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Slow(fails=frozenset([2, 3, 4, 7]))
    one = Behind(sink, "disk", live=True, most=20)
    for number in range(10):
        await one.give(result(number))
    await one.end()
    assert sink.taken == [0, 1, 5, 6, 8, 9]
    assert (one.given, one.lost) == (6, 4)
    assert [record.getMessage() for record in caplog.records] == [
        "disk: [Errno 28] No space left on device; what it cannot take is lost"
    ] * 2


async def test_one_that_hangs_ends_the_run_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "FLUSH_S", 0.1)
    one = Behind(Slow(1.0), "disk", live=True, most=5)
    for number in range(5):
        await one.give(result(number))
        await asyncio.sleep(0.01)
    begun_s = time.perf_counter()
    await one.end()
    assert time.perf_counter() - begun_s < 0.6
    assert one.lost == 5  # with the one in its hands
    await asyncio.sleep(1.1)
    assert one.counts() == {"delivered": 0, "lost": 5}
