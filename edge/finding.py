"""An agent that was given no address uses the workers that announce themselves.

Whom a worker belongs to is the business of TLS: what is announced is only an address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.proto.tasks import cancel_and_wait, start_task

from .discovery.announced import Wanted
from .discovery.network import LocalNetwork
from .discovery.search import MOST_WORKERS, Search, searching
from .errors import AgentError
from .link.channel import WorkerChannel
from .link.workers import WorkerLink, Workers
from .options import AgentOptions
from .store.bundles import bundles_in
from .store.known_models import recall
from .store.prepare import Prepared
from .transport.credentials import Credentials

log = logging.getLogger("splitpoint.edge")

ANYWHERE = "auto"  # in place of HOST:PORT: also the name that the cache knows such workers by


def check_trust(credentials: Credentials) -> None:
    """Raises `AgentError` where nothing would say whom a worker that is found belongs to."""
    if credentials.tls_ca is not None:
        return
    if credentials.metadata:
        raise AgentError(
            "the token would go to whoever announces a worker",
            "give --tls-ca, or --server HOST:PORT",
        )
    if not credentials.insecure:
        raise AgentError(
            "frames would go to whoever announces a worker",
            "give --tls-ca, or say --insecure in a network that you trust",
        )


@asynccontextmanager
async def looked_for(
    network: LocalNetwork, options: AgentOptions
) -> AsyncIterator[tuple[Search, dict[str, str]]]:
    """A search that goes on while this is entered, and what it found by then: names by HOST:PORT.

    Raises `AgentError` where several models are announced and none is named.
    """
    async with searching(network, await asyncio.to_thread(_wanted, options)) as search:
        yield search, await search.look()


def _wanted(options: AgentOptions) -> Wanted:
    digest = ""
    if options.bundle is not None:
        digest = open_bundle(options.bundle, verify_files=False).digest
    elif options.pin:
        found = {each.digest for each in bundles_in(options.cache)}
        digest = next((each for each in found if each.startswith(options.pin)), "")
    elif (known := recall(options.cache, [ANYWHERE], options.model)) is not None:
        digest = known.digest
    return Wanted(
        model=options.model,
        digest=digest,
        exact=options.bundle is not None,
        tls=options.credentials.tls_ca is not None,
    )


def say_chosen(found: Mapping[str, str], prepared: Prepared) -> None:
    """Which of them frames go to: nobody has named it."""
    if prepared.serving is not None:
        server, others = prepared.serving.server, len(found) - 1
        more = f"; others for when it fails: {others}" if others else ", the only one"
        log.warning(
            "frames go to %s (%s), which announces itself here%s",
            found[server], server, more,
        )  # fmt: skip


class Newcomers:
    """Adds workers that are announced later and serve the same bundle, a few at a time.

    One that is away, and not in use, gives its place to a new one: addresses change. `channels`
    are for files, and grow and shrink with `workers`.
    """

    def __init__(
        self,
        search: Search,
        workers: Workers,
        channels: list[WorkerChannel],
        channel_to: Callable[[str], WorkerChannel],
        links_to: Callable[[Sequence[str]], list[WorkerLink]],
    ) -> None:
        self._search, self._workers, self._channels = search, workers, channels
        self._channel_to, self._links_to = channel_to, links_to
        self._task: asyncio.Task[None] | None = None

    def start(self, digest: str) -> None:
        """From now on."""
        self._task = start_task(self._add(digest), "add-workers", log)

    async def close(self) -> None:
        """Adds no more."""
        await cancel_and_wait(self._task)

    async def _add(self, digest: str) -> None:
        known = [link.server for link in self._workers.links]
        async with aclosing(self._search.others(digest, known)) as others:
            async for server, label in others:
                if await self._workers.make_room(MOST_WORKERS):
                    self._use(server, label)
                    known[:] = [link.server for link in self._workers.links]
                    await self._forget(known)

    def _use(self, server: str, label: str) -> None:
        try:
            channel = self._channel_to(server)
            links = self._links_to([server])
        except SplitpointError as error:  # certificates that are not good any more
            log.warning("%s cannot be used: %s", server, error)
            return
        self._channels.append(channel)
        for link in links:
            self._workers.add(link)
        log.warning("%s (%s) announces itself, too", label, server)

    async def _forget(self, known: list[str]) -> None:
        gone = [channel for channel in self._channels if channel.server not in known]
        self._channels[:] = [channel for channel in self._channels if channel.server in known]
        for channel in gone:
            await channel.close()
