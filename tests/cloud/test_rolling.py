"""Two workers, one restarted after the other while frames go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from course import BUDGET_MS, course, worker_process
from processes import free_port
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec

pytestmark = pytest.mark.slow


async def test_rolling_restart_under_load(
    small_bundle: Bundle, small: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Every frame has its answer, none later than its budget and one finish on the device."""
    with torch.inference_mode():
        expected = small.module(torch.tensor(pixels)).numpy()
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(ExitStack())
        workers = [
            processes.enter_context(worker_process(small_bundle.folder, free_port()))
            for _ in range(2)
        ]
        addresses = ",".join(worker.address for worker in workers)
        courses = [
            await stack.enter_async_context(course(
                EdgeAgent(addresses, split=str(split), codec="q8", cache=tmp_path / str(split),
                          budget_ms=BUDGET_MS),
                pixels, expected,
            ))
            for split in (1, 2, 3)
        ]  # fmt: skip
        for worker in workers:
            assert await asyncio.to_thread(worker.end) == 0  # drained
            await asyncio.to_thread(worker.start)
            await asyncio.sleep(0.5)
        for running in courses:
            assert running.count(Outcome.ANSWERED) > 0
