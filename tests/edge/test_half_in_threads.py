"""In which thread a device computes and encodes: another only where that takes longer than it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.frames.edge_half import EdgeHalf, EdgePart
from splitpoint.edge.frames.hedge import ANSWERS, FEWEST_ANSWERS, UsualTime
from splitpoint.edge.frames.usual_time import IN_PLACE_MS, UsualMs
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


def test_what_is_interrupted_once_stays_short() -> None:
    usual = UsualMs()
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
