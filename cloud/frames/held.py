"""The frames of one stream that have no answer yet."""

from __future__ import annotations

import asyncio

from ..engine.request import Request


class Held:
    """By their ids: the bytes that each holds, and its request once it is decoded."""

    def __init__(self) -> None:
        self._requests: dict[int, Request | None] = {}
        self._nbytes: dict[int, int] = {}
        self._cancelled: set[int] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._requests)

    def __contains__(self, frame_id: int) -> bool:
        """Whether that one has no answer yet."""
        return frame_id in self._requests

    def add(self, frame_id: int, nbytes: int) -> None:
        """It was taken, and holds so much memory."""
        self._requests[frame_id], self._nbytes[frame_id] = None, nbytes
        self._none_left.clear()

    def queued(self, frame_id: int, request: Request) -> None:
        """It was decoded, and given to an engine."""
        if frame_id in self._requests:
            self._requests[frame_id] = request

    def cancel(self, frame_id: int) -> bool:
        """Whether that says anything new."""
        if frame_id not in self._requests or frame_id in self._cancelled:
            return False
        self._cancelled.add(frame_id)
        if (request := self._requests[frame_id]) is not None:
            request.cancelled = True
        return True

    def is_cancelled(self, frame_id: int) -> bool:
        """Whether its sender does not wait for it any more."""
        return frame_id in self._cancelled

    def drop(self, frame_id: int) -> int:
        """It has its answer; the bytes that it held."""
        self._requests.pop(frame_id, None)
        self._cancelled.discard(frame_id)
        if not self._requests:
            self._none_left.set()
        return self._nbytes.pop(frame_id, 0)

    def drop_all(self) -> int:
        """Nobody waits for any of them; the bytes that they held."""
        for frame_id in list(self._requests):
            self.cancel(frame_id)
        return sum(self.drop(frame_id) for frame_id in list(self._requests))

    async def settled(self) -> None:
        """Until all have their answers."""
        await self._none_left.wait()
