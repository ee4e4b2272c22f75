"""What a signal would end, where something else ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from splitpoint.cli.shell.stop_signals import StopSignals


async def test_what_is_cancelled_leaves_nothing_behind() -> None:
    """As a source whose reader has gone: it is closed, and nobody reads it any further."""
    closed = []

    async def frames() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(1)

    with StopSignals() as stop:
        items = stop.until_requested(frames())
        assert await anext(items) == 1
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.01)
        reading.cancel()
        (end,) = await asyncio.gather(reading, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError)
    assert closed
    assert len(asyncio.all_tasks()) == 1
