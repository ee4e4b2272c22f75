"""A source at a rate of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from ..errors import SourceError
from ..given import Given
from .source import InputFeed, Source

# A camera's frames do not come at even times: this early or late, in frames, is on time.
EARLY = 0.25


class Pace:
    """When the next frame of so many a second is due; the first one is at once."""

    def __init__(self, fps: float) -> None:
        self._interval_s, self._due_s = 1 / fps, -math.inf

    def wait_s(self, now_s: float) -> float:
        """Until then; 0 for one that is a little early."""
        left_s = self._due_s - now_s
        return left_s if left_s > EARLY * self._interval_s else 0.0

    def took(self, now_s: float) -> None:
        """A frame was taken. What is late does not make the next ones hurry."""
        due_s = now_s if self._due_s == -math.inf else self._due_s
        self._due_s = max(due_s, now_s - EARLY * self._interval_s) + self._interval_s


class Paced:
    """A source that waits for its reader, read at no more than `fps` frames a second."""

    live = False

    def __init__(self, source: Source, fps: float) -> None:
        self._source, self._fps = source, fps

    @property
    def examples(self) -> Sequence[Path]:
        """Those of the source."""
        return self._source.examples

    async def open(self) -> None:
        """Opens the source."""
        await self._source.open()

    async def close(self) -> None:
        """Closes it."""
        await self._source.close()

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """All its frames."""
        pace = Pace(self._fps)
        async with aclosing(self._source.frames(feed)) as frames:
            async for given in frames:
                await asyncio.sleep(pace.wait_s(time.monotonic()))
                pace.took(time.monotonic())
                yield given


def fps_of(text: str) -> float:
    """Frames a second; `SourceError` for what is no rate."""
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 0 < fps <= 1000:
        raise SourceError(f"{text[:40]!r} is no number of frames a second", "give one like 5")
    return fps
