"""A live frame whose budget runs out while it waits for the device costs the device nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from splitpoint.edge import EdgeAgent, Given, Outcome
from splitpoint.edge.frames.edge_half import EdgeHalf
from splitpoint.partition.bundle.bundle import Bundle


async def test_it_expires_without_being_computed(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, computed = threading.Event(), list[int]()
    real = EdgeHalf.compute

    def slow(self: EdgeHalf, plan: object, inputs: object) -> object:
        computed.append(1)
        assert go.wait(20)
        return real(self, plan, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(EdgeHalf, "compute", slow)
    async with EdgeAgent(
        None, bundle=small_bundle.folder, split="local", cache=tmp_path, budget_ms=200.0
    ) as agent:
        intake = agent.session.intake
        given = Given(inputs={"pixels": pixels})
        loop = asyncio.get_running_loop()

        tasks = [loop.create_task(intake.take(given, time.perf_counter())) for _ in range(2)]
        await asyncio.sleep(0.3)
        go.set()
        first, second = await asyncio.gather(*tasks)
    assert first.outcome is Outcome.LOCAL
    assert second.outcome is Outcome.EXPIRED
    assert "before the device came to it" in second.why
    assert len(computed) == 1
