"""Frames as their source gives them, to whoever takes them in at the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable

from splitpoint.proto.tasks import cancel_and_wait

from ..given import Given, each


class Arrivals:
    """The frames of one source, one by one.

    A frame that is waited for is lost to nobody: whoever stops waiting leaves it to the next. What
    the source raises is raised once the frames before have ended, by `raise_error`.
    """

    def __init__(self, frames: AsyncIterable[Given] | Iterable[Given]) -> None:
        self._frames = each(frames)
        self._coming: asyncio.Future[Given | None] | None = None
        self._error: Exception | None = None
        self.ended = False  # there is no other

    def coming(self) -> asyncio.Future[Given | None]:
        """The next frame, None after the last: the same future until it is `taken`."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        return self._coming

    def taken(self) -> Given | None:
        """What `coming` has brought."""
        assert self._coming is not None
        given, self._coming = self._coming.result(), None
        self.ended = given is None
        return given

    async def next(self, leave: asyncio.Future[None]) -> Given | None:
        """None after the last, and once it is time to `leave`."""
        coming = self.coming()
        if not leave.done():
            await asyncio.wait((coming, leave), return_when=asyncio.FIRST_COMPLETED)
        return None if leave.done() else self.taken()

    def raise_error(self) -> None:
        """Raises what ended the source early, if anything did."""
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Waits for no other frame."""
        await cancel_and_wait(self._coming)

    async def _next(self) -> Given | None:
        try:
            return await anext(self._frames, None)
        except Exception as error:  # noqa: BLE001 - frames that were taken in are to end first
            self._error = error
            return None
