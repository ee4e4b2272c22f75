"""The one stream to a worker, opened again where it was lost or is to end."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Callable

from splitpoint.codec import SplitpointError
from splitpoint.proto.status import FrameExpiredError, RefusedError, UnreachableError
from splitpoint.proto.tasks import cancel_and_wait, start_task

from .channel import WorkerChannel
from .frame_stream import FrameStream
from .refused import TURNED_AWAY, TurnedAway

log = logging.getLogger("splitpoint.edge")

_POLL_S = 0.05


class Connection:
    """Opens streams of one model on a channel; `opened` is called with each.

    A worker that ends a stream for its age says so before: another is opened on a connection of its
    own, and then takes its place.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        model: str,
        digest: str,
        opened: Callable[[FrameStream], None],
    ) -> None:
        self._channel, self._model, self._digest, self._opened = channel, model, digest, opened
        self._opening: asyncio.Task[FrameStream] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._turned_away = TurnedAway(channel.server)
        self._closed = False
        self.stream: FrameStream | None = None  # the latest, working or not
        self.refused = False  # whether the worker, when it was last heard, did not have this model

    @property
    def server(self) -> str:
        """HOST:PORT."""
        return self._channel.server

    async def live(self, timeout_s: float | None = None) -> FrameStream:
        """The stream, opened (again) where there is none that works.

        All frames that wait share one attempt, which outlives those whose budget ends first.
        Raises `FrameExpiredError` after `timeout_s`, and what opening a stream raises. A worker
        that does not let this device in is not asked again at once.
        """
        if self._closed:
            raise UnreachableError("the agent is closed")
        if self.stream is not None and self.stream.session.broken is None:
            return self.stream
        if self._opening is None or self._opening.done():
            if self._channel.outdated:  # somebody has changed what it was turned away for
                self._turned_away.let_in()
            self._turned_away.check()
            self._opening = asyncio.create_task(self._open(), name="open-stream")
            # Where nobody waits any more, nobody misses the exception either.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        done, _ = await asyncio.wait([self._opening], timeout=timeout_s)
        if not done:
            raise FrameExpiredError("the budget ran out while connecting")
        if any(opening.cancelled() for opening in done):  # by `close`
            raise UnreachableError("the agent is closed")
        return done.pop().result()

    async def close(self) -> None:
        """Ends the stream, then the channel."""
        self._closed = True
        try:
            await cancel_and_wait(self._opening, self._moving)
        finally:
            await _end(self.stream, self._channel)

    async def _open(self) -> FrameStream:
        if self.stream is not None:
            await self.stream.close()
        try:
            stream = await self._open_on(self._channel)
        except TURNED_AWAY as error:
            self._turned_away.again(error)
            raise
        except RefusedError:
            self.refused = True
            raise
        self._turned_away.let_in()
        self.refused = False
        self._take(stream)
        return stream

    async def _open_on(self, channel: WorkerChannel) -> FrameStream:
        client = f"{platform.node()}/{os.getpid()}"
        return await channel.open_stream(self._model, self._digest, client)

    def _take(self, stream: FrameStream) -> None:
        self.stream = stream
        stream.on_reopen = self._move
        self._opened(stream)

    def _move(self) -> None:
        if not self._closed and (self._moving is None or self._moving.done()):
            self._moving = start_task(self._moved(), "move-stream", log)

    async def _moved(self) -> None:
        """Puts another stream in the place of this one, which ends when its frames are answered."""
        old, old_channel = self.stream, self._channel
        if old is None:
            return
        try:
            stream, channel = await self._open_beside(old_channel)
        except SplitpointError as error:
            # Frames go on as they are, and find out for themselves when the stream has ended.
            log.info("no other stream for one that is about to end: %s", error)
            return
        is_opening = self._opening is not None and not self._opening.done()
        if self.stream is not old or is_opening:  # it was lost, and a frame opens another
            await _end(stream, channel)
            return
        self._channel = channel
        self._take(stream)
        try:
            await _emptied(old)
        finally:
            await _end(old, old_channel)

    async def _open_beside(self, channel: WorkerChannel) -> tuple[FrameStream, WorkerChannel]:
        other = channel.again()
        try:
            return await self._open_on(other), other
        except BaseException:
            await other.close()
            raise


async def _emptied(stream: FrameStream) -> None:
    """Until no frame is under way. Seen twice: one may just have been given its credit."""
    seen = 0
    while seen < 2 and stream.session.broken is None:
        await asyncio.sleep(_POLL_S)
        seen = seen + 1 if stream.session.idle else 0


async def _end(stream: FrameStream | None, channel: WorkerChannel) -> None:
    try:
        if stream is not None:
            await stream.close()
    finally:
        await channel.close()
