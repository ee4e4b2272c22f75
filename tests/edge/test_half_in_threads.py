"""In which thread a device computes and encodes: another only where that takes longer than it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from patience import PATIENCE_S
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.frames.edge_half import EdgeHalf, EdgePart
from splitpoint.edge.frames.frame import Frame
from splitpoint.edge.frames.half_in_threads import HalfInThreads, Threads
from splitpoint.edge.frames.hedge import ANSWERS, FEWEST_ANSWERS, UsualTime
from splitpoint.edge.frames.work_time import IN_PLACE_MS, WorkTime
from splitpoint.partition.plan.plan import Plan

LOOP, COMPUTE, ENCODE = "MainThread", "splitpoint-edge", "splitpoint-encode"


@pytest.mark.parametrize(
    ("compute_ms", "encode_ms", "threads"),
    [
        (0.1, 0.1, (LOOP, LOOP)),
        (30.0, 0.1, (COMPUTE, COMPUTE)),
        (30.0, 1.0, (COMPUTE, COMPUTE)),
        (30.0, 5.0, (COMPUTE, ENCODE)),
        (2.0, 1.0, (COMPUTE, ENCODE)),
        (0.1, 5.0, (LOOP, ENCODE)),
    ],
)
async def test_another_thread_is_taken_where_it_is_worth_it(
    worker: FakeWorker,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compute_ms: float,
    encode_ms: float,
    threads: tuple[str, str],
) -> None:
    """From the frame on that follows the first, which tells how long both take."""
    seen: list[str] = []

    def said(real: Callable[..., EdgePart], **times: float) -> Callable[..., EdgePart]:
        def fake(half: EdgeHalf, plan: Plan, what: object) -> EdgePart:
            part = real(half, plan, what)
            seen.append(threading.current_thread().name.rpartition("_")[0] or LOOP)
            for name, ms in times.items():
                object.__setattr__(part, name, ms)
            return part

        return fake

    monkeypatch.setattr(EdgeHalf, "compute", said(EdgeHalf.compute, edge_ms=compute_ms))
    monkeypatch.setattr(EdgeHalf, "encode", said(EdgeHalf.encode, encode_ms=encode_ms))
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="q8", cache=tmp_path
    ) as agent:
        for _ in range(3):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    assert seen == [COMPUTE, ENCODE, *threads, *threads]


QUICK, SLOW = (Plan(boundary=boundary, codec="q8") for boundary in (1, 2))


class FakeHalf:
    """Says that frames of `QUICK` take next to nothing, and others long. Notes where they ran."""

    streams = False

    def __init__(self) -> None:
        self.seen: list[tuple[Plan, str]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def compute(self, plan: Plan, inputs: object) -> EdgePart:
        self.seen.append((plan, threading.current_thread().name.rpartition("_")[0] or LOOP))
        if plan == SLOW:
            self.goes_on.wait(PATIENCE_S)
        return EdgePart({}, plan.codec, 0.1 if plan == QUICK else 50.0)

    def encode(self, plan: Plan, part: EdgePart) -> EdgePart:
        raise AssertionError("frames are only computed here")


@pytest.fixture
def threads() -> Iterator[Threads]:
    with ThreadPoolExecutor(1, COMPUTE) as compute, ThreadPoolExecutor(1, ENCODE) as encode:
        yield Threads(compute, encode)


def framed(plan: Plan, batch: int = 1) -> Frame:
    return Frame(id=1, plan=plan, inputs=cast(Any, {}), batch=batch, budget_ms=60_000)


async def test_what_another_plan_takes_brings_no_frame_onto_the_event_loop(
    threads: Threads,
) -> None:
    """Frames of two plans are under way at once, as those that are chosen one by one are."""
    half = FakeHalf()
    both = HalfInThreads(cast(EdgeHalf, half), threads)
    half.goes_on.clear()
    quick = asyncio.create_task(both.compute(framed(QUICK), encode=False))
    slow = [asyncio.create_task(both.compute(framed(SLOW), encode=False))]
    await quick
    slow.append(asyncio.create_task(both.compute(framed(SLOW), encode=False)))
    await asyncio.sleep(0)  # it is on its way
    half.goes_on.set()
    await asyncio.gather(*slow)
    assert half.seen == [(QUICK, COMPUTE), (SLOW, COMPUTE), (SLOW, COMPUTE)]


async def test_plans_that_take_turns_are_known(threads: Threads) -> None:
    half = FakeHalf()
    both = HalfInThreads(cast(EdgeHalf, half), threads)
    for _ in range(2):
        for frame in (framed(QUICK), framed(SLOW), framed(QUICK, batch=64)):
            await both.compute(frame, encode=False)
    first, again = half.seen[:3], half.seen[3:]
    assert first == [(QUICK, COMPUTE), (SLOW, COMPUTE), (QUICK, COMPUTE)]
    assert again == [(QUICK, LOOP), (SLOW, COMPUTE), (QUICK, LOOP)]


def test_what_is_interrupted_once_stays_short() -> None:
    usual = WorkTime()
    assert not usual.is_short
    for ms in (0.1, 1.5, 0.1, 0.1):
        usual.took(ms)
        assert usual.is_short
    for _ in range(3):
        usual.took(1.5)
    assert usual.ms > IN_PLACE_MS


def test_the_usual_time_is_the_percentile_of_the_latest_answers() -> None:
    usual, given = UsualTime(), np.random.default_rng(0).gamma(2, 20, 300)
    for count, ms in enumerate(given, 1):
        usual.answered(float(ms))
        if count < FEWEST_ANSWERS:
            assert usual.ms is None
        else:
            latest = given[max(count - ANSWERS, 0) : count]
            assert usual.ms == pytest.approx(np.percentile(latest, 95))
