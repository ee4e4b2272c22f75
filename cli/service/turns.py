"""Requests' frames on their way through the agent, which they share with a source's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from splitpoint.edge import EdgeAgent, Given, Result
from splitpoint.edge.sources.source import InputFeed
from splitpoint.proto.tasks import cancel_and_wait

DECODERS = 2  # a photo of 89 million pixels takes 0.3 GB while it is decoded


class Turns:
    """Each request's frame is decoded, then computed when it is its turn, first come first served.

    Only one of them waits for the device's compute thread at a time, so that a source's frame
    never has more than one before it, and more go on while they are on their way to a worker. A
    request whose client has gone leaves its place; a frame that has begun ends as all do, and its
    result goes to `ended`.
    """

    def __init__(self, agent: EdgeAgent, feed: InputFeed, ended: Callable[[Result], None]) -> None:
        self._agent, self._feed, self._ended = agent, feed, ended
        self._room = asyncio.Semaphore(agent.session.workers.credits + 2)
        self._turn = asyncio.Lock()
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="splitpoint-http")
        self._running: set[asyncio.Task[Result]] = set()
        self._taken = 0

    async def infer(self, content: bytes) -> Result:
        """The result of what a body holds.

        Raises `InputError` or `PictureError` for what is no input of the model.
        """
        await self._room.acquire()
        begun = False
        try:
            given = await self._decoded(content)
            await self._turn.acquire()
            begun = True
        finally:
            if not begun:
                self._room.release()
        task = asyncio.create_task(self._one(given), name="http-frame")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Until the frames that have begun have ended, as each does within its budget."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Ends what is under way."""
        await cancel_and_wait(*self._running)
        await asyncio.to_thread(self._decoders.shutdown, cancel_futures=True)

    async def _decoded(self, content: bytes) -> Given:
        self._taken += 1
        decode = partial(self._feed.of_content, content, f"http#{self._taken - 1}")
        given = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
        if given.error is not None:
            raise given.error
        return given

    async def _one(self, given: Given) -> Result:
        waits = True

        def computed() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._turn.release()

        try:
            result = await self._agent.infer(
                given.inputs, metadata=given.metadata, computed=computed
            )
        finally:
            computed()
            self._room.release()
        self._ended(result)
        return result
