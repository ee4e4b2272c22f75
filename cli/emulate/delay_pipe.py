"""Bytes that are under way on an emulated link."""

from __future__ import annotations

import asyncio
from collections import deque

# Far more than any link holds, so that it slows nothing down, and little beside a machine's memory.
MOST_BYTES = 16 << 20


class DelayPipe:
    """Hands chunks on in their order, each with the time at which it is due.

    It holds about `most_bytes`: who puts more waits until others were taken, as the sender on a
    link whose far end does not read.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._held_bytes = most_bytes, 0
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Condition()

    async def put(self, due_s: float, data: bytes) -> None:
        """Takes a chunk once there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held_bytes < self._most_bytes)
            self._chunks.append((due_s, data))
            self._held_bytes += len(data)
            self._changed.notify_all()

    async def get(self) -> tuple[float, bytes]:
        """The oldest chunk and when it is due."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks)
            due_s, data = self._chunks.popleft()
            self._held_bytes -= len(data)
            self._changed.notify_all()
            return due_s, data
