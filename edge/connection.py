"""The one stream to a worker, opened again where it was lost."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable

from splitpoint.proto.status import FrameExpiredError, UnreachableError

from .channel import WorkerChannel
from .frame_stream import FrameStream


class Connection:
    """Opens streams of one model on a channel; `opened` is called with each."""

    def __init__(
        self,
        channel: WorkerChannel,
        model: str,
        digest: str,
        opened: Callable[[FrameStream], None],
    ) -> None:
        self._channel, self._model, self._digest, self._opened = channel, model, digest, opened
        self._opening: asyncio.Task[FrameStream] | None = None
        self._closed = False
        self.stream: FrameStream | None = None  # the latest, working or not

    @property
    def server(self) -> str:
        """HOST:PORT."""
        return self._channel.server

    async def live(self, timeout_s: float | None = None) -> FrameStream:
        """The stream, opened (again) where there is none that works.

        All frames that wait share one attempt, which outlives those whose budget ends first.
        Raises `FrameExpiredError` after `timeout_s`, and what opening a stream raises.
        """
        if self._closed:
            raise UnreachableError("the agent is closed")
        if self.stream is not None and self.stream.broken is None:
            return self.stream
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="open-stream")
            # Where nobody waits any more, nobody misses the exception either.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(self._opening), timeout_s)
        except asyncio.TimeoutError:
            raise FrameExpiredError("the budget ran out while connecting") from None

    async def close(self) -> None:
        """Ends the stream, then the channel."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self.stream is not None:
            await self.stream.close()
        await self._channel.close()

    async def _open(self) -> FrameStream:
        if self.stream is not None:
            await self.stream.close()
        client = f"{platform.node()}/{os.getpid()}"
        self.stream = await self._channel.open_stream(self._model, self._digest, client)
        self._opened(self.stream)
        return self.stream
