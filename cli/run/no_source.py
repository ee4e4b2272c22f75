"""A run whose frames all come from elsewhere, as those of HTTP requests do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from splitpoint.edge import Given
from splitpoint.edge.sources.source import InputFeed


class NoSource:
    """Gives no frame, and does not end by itself."""

    live = False
    examples: tuple[Path, ...] = ()

    async def open(self) -> None:
        """There is nothing to open."""

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """Waits until it is closed."""
        await asyncio.Event().wait()
        yield Given()  # never: it makes this a generator

    async def close(self) -> None:
        """There is nothing left open."""
