"""An agent that is left gives everything back, also where the leaving is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from patience import until
from splitpoint.edge import EdgeAgent, FakeWorker


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("splitpoint-")]


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_leaving_that_is_cancelled(worker: FakeWorker, tmp_path: Path, turns: int) -> None:
    """Whatever it waited for then, after so many turns of the event loop."""
    threads = own_threads()
    agent = EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec="raw", cache=tmp_path
    )
    await agent.__aenter__()
    assert worker.streams == 1
    leaving = asyncio.create_task(agent.__aexit__(None, None, None))
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: worker.streams == 0)
    await until(lambda: own_threads() == threads)
    await until(lambda: len(asyncio.all_tasks()) == 1)
