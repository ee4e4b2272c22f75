"""Looking for workers that announce themselves: some seconds at the start, then all along."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from splitpoint.proto.announcement import AnnouncementError
from splitpoint.proto.status import UnreachableError
from splitpoint.proto.tasks import within

from .announced import AnnouncedWorker, Wanted, fitting, usable
from .network import LocalNetwork, Record

log = logging.getLogger("splitpoint.edge")

LOOK_S = 3.0
PAUSE_S = 1.0  # at least, however often something is announced
AGAIN_S = 10.0  # until one that was announced, and not reached, is tried once more
MOST_HEARD = 64  # names: who shouts more is not listened to
MOST_WORKERS = 8  # that are asked


class Search:
    """What is announced in a network now; see `searching`."""

    def __init__(self, network: LocalNetwork, wanted: Wanted) -> None:
        self._network, self._wanted = network, wanted
        self._heard: dict[str, AnnouncedWorker] = {}
        self._changed = asyncio.Event()

    def heard(self, name: str, record: Record | None) -> None:
        """Somebody announces something, or withdraws it."""
        self._heard.pop(name, None)
        if record is not None and len(self._heard) < MOST_HEARD:
            try:
                self._heard[name] = AnnouncedWorker.of(name, record)
            except AnnouncementError as error:
                log.debug("left out: %s", error)
        self._changed.set()

    async def look(self) -> dict[str, str]:
        """Each worker that fits and takes connections, after `LOOK_S`: its name by HOST:PORT.

        Raises `AgentError` where it has to be said which model is wanted.
        """
        await asyncio.sleep(LOOK_S)
        return await self._reached(fitting(self._heard.values(), self._wanted)[:MOST_WORKERS])

    async def others(
        self, digest: str, known: Collection[str]
    ) -> AsyncGenerator[tuple[str, str], None]:
        """HOST:PORT and name of workers that serve a bundle, as they come, but for `known`."""
        wanted = replace(self._wanted, digest=digest)
        while True:
            self._changed.clear()
            for one in usable(self._heard.values(), wanted):
                if digest in one.says.models and not set(one.servers) & set(known):
                    for found in (await self._reached([one])).items():
                        yield found
            await asyncio.sleep(PAUSE_S)
            with suppress(asyncio.TimeoutError):
                await within(AGAIN_S, self._changed.wait())

    def nobody(self) -> UnreachableError:
        """Why there is no worker, and what to do about it."""
        heard, here = self._heard.values(), "announces itself in the local network"
        start = "start one with `splitpoint serve --announce auto`, or give --server HOST:PORT"
        if not heard:
            return UnreachableError(f"no worker {here}", start)
        if usable(heard, self._wanted):
            what = f"no worker {here} that serves the model and can be reached"
            return UnreachableError(what, start)
        others = len(usable(heard, replace(self._wanted, tls=not self._wanted.tls)))
        if others and self._wanted.tls:
            return UnreachableError(f"no worker with TLS {here}, but {others} without", start)
        if others:
            what = f"no worker without TLS {here}, but {others} with it"
            return UnreachableError(what, "give --tls-ca")
        same = "install the same version of splitpoint at both ends"
        return UnreachableError(f"no worker of this version {here}", same)

    async def _reached(self, workers: Sequence[AnnouncedWorker]) -> dict[str, str]:
        """The first address of each that takes a connection."""
        asked = [(one, server) for one in workers for server in one.servers]
        answers = await asyncio.gather(*(self._network.reaches(server) for _, server in asked))
        first: dict[tuple[str, ...], tuple[str, str]] = {}
        for (one, server), answer in zip(asked, answers, strict=True):
            if answer:
                first.setdefault(one.servers, (server, one.label))
        return dict(first.values())


@asynccontextmanager
async def searching(network: LocalNetwork, wanted: Wanted) -> AsyncIterator[Search]:
    """A search, for as long as it is entered. Raises `ModuleNotFoundError` without the extra."""
    search = Search(network, wanted)
    async with network.listening(search.heard):
        yield search
