"""Several sources through one agent: each at its own pace, none hurt by another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from splitpoint.codec import SplitpointError
from splitpoint.edge import EdgeAgent, Result
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.named import NamedSource
from splitpoint.edge.sources.source import InputFeed
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.tasks import cancel_and_wait

from ..shell.stop_signals import Stopped, StopSignals

log = logging.getLogger("splitpoint.edge")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MOST_UNREAD = 16


class Together:
    """The sources of one run.

    A frame waits for those of its own source only: of live sources, each has its newest frame
    considered in turn. `failed` are those that ended with an error while others went on.
    """

    def __init__(self, sources: Sequence[NamedSource]) -> None:
        self._sources = sources
        self._late: set[str] = set()  # those that were not there at the start
        self.failed: list[str] = []

    @property
    def live(self) -> bool:
        """Whether any of them does not wait for its reader."""
        return any(each.source.live for each in self._sources)

    async def open(self) -> None:
        """Opens all, side by side.

        A live one that is not there is looked for again while the others run. Raises `SourceError`
        where none is there, or for files that are not.
        """
        opening = (each.source.open() for each in self._sources)
        found = await asyncio.gather(*opening, return_exceptions=True)
        lost = [
            (each, error)
            for each, error in zip(self._sources, found, strict=True)
            if isinstance(error, BaseException)
        ]
        for each, error in lost:
            may_come = each.source.live and isinstance(error, SourceError)
            if not may_come or len(lost) == len(self._sources):
                raise error
        for each, error in lost:
            log.warning("%s: %s; it is tried again while the others run", each, error)
            self._late.add(each.name)

    async def close(self) -> None:
        """Closes all, whichever fails."""
        closing = (each.source.close() for each in self._sources)
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def results(
        self, agent: EdgeAgent, stop: StopSignals, *, keeps: Callable[[int], bool], in_flight: int
    ) -> AsyncGenerator[Result, None]:
        """The results of all, as they come, until all have ended or the user stops them."""
        found: asyncio.Queue[Result | Exception | None] = asyncio.Queue(MOST_UNREAD)

        async def one(each: NamedSource) -> None:
            feed = InputFeed.of(agent.manifest, keeps, source=each.name, lens=each.lens)
            try:
                if each.name in self._late:
                    await stop.unless_requested(_come(each))
                frames = stop.until_requested(each.source.frames(feed))
                stream = agent.stream(frames, in_flight, live=each.source.live)
                async with aclosing(stream) as results:
                    async for result in results:
                        await found.put(result)
            except Stopped:
                await found.put(None)
            except Exception as error:  # noqa: BLE001 - it is raised, or said, below
                await found.put(error)
            else:
                await found.put(None)

        tasks = [asyncio.create_task(one(each), name="source") for each in self._sources]
        try:
            running = len(tasks)
            while running:
                item = await found.get()
                if isinstance(item, Result):
                    yield item
                    continue
                running -= 1
                if item is not None:
                    self._ended(item)
        finally:
            await cancel_and_wait(*tasks)

    def _ended(self, error: Exception) -> None:
        if len(self._sources) == 1 or not isinstance(error, SplitpointError):
            raise error
        self.failed.append(str(error))
        if len(self.failed) == len(self._sources):
            raise error
        log.error("%s; the other sources go on", error)


async def _come(each: NamedSource) -> None:
    """Opens a live source that was not there."""
    pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        await asyncio.sleep(pauses.next_s())
        with suppress(SourceError):
            await each.source.open()
            log.warning("%s is there", each)
            return
