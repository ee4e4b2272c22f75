"""The workers that a device may use: which of them is asked, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.proto.address import AddressError, split_address
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, MAX_CREDITS, max_frame_bytes
from splitpoint.proto.tasks import cancel_and_wait, start_task

from ..errors import AgentError
from .breaker import Breaker
from .channel import WorkerChannel
from .connection import Connection
from .frame_stream import FrameStream

log = logging.getLogger("splitpoint.edge")

# How often those that are not in use are looked at, and how much sooner one of them must answer
# for the device to move.
WATCH_S, SOONER = 5.0, 0.7
LEAST_GAIN_MS = 5.0
REFUSED_S = 2 * WATCH_S  # until one that refused a frame may be the idlest again


def parse_servers(text: str) -> list[str]:
    """`a:7070,b:7070` as a list. Raises `AgentError` for duplicates and for what is no address."""
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        try:
            host, port = split_address(server)
        except AddressError as error:
            raise AgentError(
                f"the server {server!r} is no address", error.remedy or "give HOST:PORT"
            ) from error
        if not host or not port:
            raise AgentError(f"the server {server!r} is no address", "give HOST:PORT[,HOST:PORT…]")
    twice = [server for server in servers if servers.count(server) > 1]
    if twice:
        raise AgentError(f"the server {twice[0]} is named twice", "name each once")
    return servers


class WorkerLink:
    """One worker: its connection, and whether it may be asked."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.breaker = Breaker(connection)

    @property
    def server(self) -> str:
        """HOST:PORT."""
        return self.connection.server

    @property
    def usable(self) -> bool:
        """Whether frames may be sent there now; a lost stream is opened again for them."""
        stream = self.connection.stream
        drains = stream is not None and stream.session.draining and stream.session.broken is None
        return not self.breaker.is_open and not drains

    @property
    def lost(self) -> bool:
        """Whether its stream broke, and nobody has opened another."""
        stream = self.connection.stream
        return stream is not None and stream.session.broken is not None

    @property
    def away(self) -> bool:
        """Whether nothing is heard from there: its stream broke, or it does not even echo."""
        return self.lost or self.breaker.is_open

    @property
    def wait_ms(self) -> float | None:
        """What a frame there waits beyond computing: round trip and queue; None if not known.

        A worker that has just refused a frame has no room for this device, whatever its queue; one
        that leaves frames unanswered is of no use, however near it is.
        """
        stream = self.connection.stream
        if stream is None or stream.session.broken is not None:
            return None
        if self.breaker.shunned or time.perf_counter() - stream.session.refused_s < REFUSED_S:
            return math.inf
        return stream.session.round_trip_ms + stream.session.load.queue_ms


def links_of(
    servers: Sequence[str],
    first: str,
    manifest: Manifest,
    digest: str,
    channel_to: Callable[[str, int], WorkerChannel],
    opened: Callable[[FrameStream], None],
) -> list[WorkerLink]:
    """A link to each of `servers` for frames of one bundle; `first` is the first to be asked.

    `channel_to` makes a channel for messages of so many bytes; `opened` is called with each stream.
    """
    specs = [boundary.tensors for boundary in manifest.boundaries]
    limit = max_frame_bytes(specs, MAX_BATCH_PER_FRAME)
    return [
        WorkerLink(Connection(channel_to(server, limit), manifest.name, digest, opened))
        for server in sorted(servers, key=lambda server: server != first)
    ]


class Workers:
    """Frames go to one of several workers: to the nearest and idlest, and to others when it fails.

    A worker that fails is not asked until it echoes again; while several are there, those not in
    use keep a stream, and are looked at every few seconds. There may be none at all.
    """

    def __init__(self, links: Sequence[WorkerLink]) -> None:
        self.links = list(links)
        self._current = next(iter(self.links), None)
        self._watching: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.links)

    @property
    def current(self) -> WorkerLink:
        """The one in use; `AgentError` where there is none."""
        if self._current is None:
            raise AgentError("there is no worker", "give --server HOST:PORT, or --split local")
        return self._current

    @property
    def credits(self) -> int:
        """How many frames may be unanswered; one that is not there yet will grant the usual."""
        if not self.links:
            return 1
        return MAX_CREDITS if self.stream is None else self.stream.session.credits

    def start(self) -> None:
        """Begins to watch those that are not in use."""
        if len(self.links) > 1 and self._watching is None:
            self._watching = start_task(self._watch(), "watch-workers", log)

    async def close(self) -> None:
        """Ends every stream and connection."""
        async with AsyncExitStack() as closing:  # all of them, whatever becomes of one
            for link in self.links:
                closing.push_async_callback(link.connection.close)
            for link in self.links:  # first: frames that one of them loses shall not go to the next
                closing.push_async_callback(link.breaker.close)
            await cancel_and_wait(self._watching)

    def add(self, link: WorkerLink) -> None:
        """One more, which is asked once it echoes."""
        self.links.append(link)
        if self._current is None:
            self._current = link
        link.breaker.open()
        self.start()

    async def make_room(self, most: int) -> bool:
        """Whether there are fewer than `most`. One that is away, and not in use, is let go."""
        if len(self.links) < most:
            return True
        gone = [link for link in self.links if link is not self._current and link.breaker.is_open]
        for link in gone[:1]:
            self.links.remove(link)
            try:
                await link.breaker.close()
            finally:
                await link.connection.close()
        return bool(gone)

    def pick(
        self, besides: Collection[WorkerLink] = (), *, needed: bool = False
    ) -> WorkerLink | None:
        """The worker for the next frame, none of `besides`; None where none may be asked.

        Where a worker is `needed`, because the device cannot finish the frame, one on trial will do
        for every frame.
        """
        links = sorted(self.links, key=lambda link: (link is not self._current, _wait_ms(link)))
        usable = [link for link in links if link not in besides and link.usable]
        chosen = next((link for link in usable if link.breaker.allows()), None)
        if chosen is None and needed and usable:
            chosen = usable[0]
        if chosen is not None and chosen is not self._current:
            self.move_to(chosen, "which lost or refused a frame" if besides else "")
        return chosen

    def look_for(self) -> None:
        """Where the worker in use is lost, has it asked for until it echoes.

        Frames do that by themselves; it is for when there are none.
        """
        if self.current.lost and not self.current.breaker.is_open:
            self.current.breaker.open()

    def look_for_all(self) -> None:
        """Has all of them asked for until they echo: none has answered yet."""
        for link in self.links:
            link.breaker.open()

    @property
    def refuse(self) -> bool:
        """Whether some take no frames of this model, and none takes any."""
        return any(link.connection.refused for link in self.links) and all(
            link.connection.refused or link.away for link in self.links
        )

    @property
    def stream(self) -> FrameStream | None:
        """The stream to the worker in use, if there is one that works."""
        stream = None if self._current is None else self._current.connection.stream
        return stream if stream is not None and stream.session.broken is None else None

    def move_to(self, link: WorkerLink, why: str = "") -> None:
        """Frames go there from now on; the log says why."""
        log.warning("frames go to %s instead of %s%s", link.server, self.current.server,
                    f", {why}" if why else "")  # fmt: skip
        self._current = link

    async def _watch(self) -> None:
        while True:
            for link in tuple(self.links):
                if link is not self.current and not link.breaker.is_open:
                    try:
                        await (await link.connection.live()).probe(timeout_s=1.0)
                    except SplitpointError:
                        link.breaker.open()
            now, best = self.current.wait_ms, min(self.links, key=_wait_ms)
            soon = best.wait_ms
            if (
                best is not self.current
                and best.usable
                and now is not None
                and soon is not None
                and soon < SOONER * now
                and now - soon > LEAST_GAIN_MS
            ):
                self.move_to(best, f"which {self._why_not(now - soon)}")
            await asyncio.sleep(WATCH_S)

    def _why_not(self, later_ms: float) -> str:
        """What the worker in use does, so that another is better."""
        if later_ms < math.inf:
            return f"answers {later_ms:.0f} ms later"
        unanswered = self.current.breaker.shunned
        return "leaves frames unanswered" if unanswered else "refuses frames"


def _wait_ms(link: WorkerLink) -> float:
    wait_ms = link.wait_ms
    return math.inf if wait_ms is None else wait_ms
