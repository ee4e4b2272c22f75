"""Waiting for what must come about, on a machine that may be doing other things.

A test's verdict is never how long something took: it waits until a condition holds, and fails only
where that would take a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from splitpoint.cli.relay import Relay

PATIENCE_S = 60.0
FOREVER_S = 3600.0  # of a fault that the test ends


async def until(condition: Callable[[], bool], what: str = "it did not come about") -> None:
    """Returns once `condition` holds."""
    for _ in range(int(100 * PATIENCE_S)):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(what)


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
