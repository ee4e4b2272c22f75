"""Waiting for what must come about, on a machine that may be doing other things.

A test's verdict is never how long something took: it waits until a condition holds, and fails only
where that would take a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from splitpoint.cli.emulate.relay import Relay

PATIENCE_S = 60.0
BEAT_S = 0.01
FOREVER_S = 3600.0  # of a fault that the test ends


async def until(condition: Callable[[], object], what: str = "it did not come about") -> None:
    """Returns once `condition` holds."""
    for _ in range(int(100 * PATIENCE_S)):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(what)


class Lateness:
    """How late the event loop is while it is entered: what the machine takes from this process."""

    def __init__(self) -> None:
        self._beats: list[tuple[float, float]] = []  # when one ended, and how late
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Lateness:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            due_s = time.perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            now_s = time.perf_counter()
            self._beats.append((now_s, now_s - due_s))

    def within_s(self, begin_s: float, end_s: float) -> float:
        """All of it between two times of `time.perf_counter`."""
        return sum(late for at_s, late in self._beats if begin_s < at_s < end_s + BEAT_S)


@asynccontextmanager
async def stalled(relay: Relay) -> AsyncIterator[None]:
    """Nothing moves within the block, and everything after it."""
    stalling = asyncio.create_task(relay.stall(FOREVER_S))
    await asyncio.sleep(0)  # it begins
    try:
        yield
    finally:
        stalling.cancel()
        await asyncio.gather(stalling, return_exceptions=True)
        await relay.stall(0)


@asynccontextmanager
async def refusing(relay: Relay) -> AsyncIterator[None]:
    """Connections are reset, and none accepted within the block."""
    cutting = asyncio.create_task(relay.cut(FOREVER_S))
    await asyncio.sleep(0)  # it begins
    try:
        yield
    finally:
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        await relay.cut(0)


@asynccontextmanager
async def swallowing(relay: Relay) -> AsyncIterator[None]:
    """All bytes vanish within the block; then connections are reset."""
    hole = asyncio.create_task(relay.black_hole(FOREVER_S))
    await asyncio.sleep(0)  # it begins
    try:
        yield
    finally:
        hole.cancel()
        await asyncio.gather(hole, return_exceptions=True)
        await relay.black_hole(0)
