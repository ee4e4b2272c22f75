"""What each client takes now, over all of its streams, and what is too much."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Protocol

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.status import NO_ROOM

from .access import AccessError
from .refusals import Refusal, Refusals
from .token_bucket import Clock, TokenBucket
from .tokens import Client

# A message that brings no frame takes the worker as long to read as one that does: wrong ones,
# refused ones, cancels of nothing, probes beyond all need. Of those, a client's stream may send so
# many a second, which no edge on a bad link or with a full worker comes near, and then waits. A
# client with more streams may send as many times more, up to what leaves the worker its time.
IN_VAIN_PER_S, IN_VAIN_AT_ONCE, IN_VAIN_STREAMS = 100.0, 50, 10
# Whoever leaves its streams instead of waiting shall not have those wait who share its address.
MOST_PAUSE_S = 1.0
# Probes that a stream may send without question; measuring a link takes two dozen at first.
PROBES_PER_S = 32.0


class ClientUse:
    """One client's messages, in all of its streams."""

    def __init__(self, client: Client, refusals: Refusals, clock: Clock = time.monotonic) -> None:
        self.client = client
        self._refusals = refusals
        self._bucket = TokenBucket(client.max_requests_per_s, clock)
        self._clock, self._atoned_s = clock, -math.inf
        self.streams = 0  # open now
        self.nbytes = 0  # of tensors in unanswered frames, decoded

    def request(self) -> None:
        """A frame has come. Raises `FrameError` (OVERLOADED) when it is one too many."""
        if not self._bucket.take():
            raise self._refused(
                Refusal.RATE,
                f"this client may ask {self.client.max_requests_per_s:g} times a second",
            )

    def in_vain(self) -> float:
        """A message came that brought no frame: until when nothing is to be read from its stream.

        All of the client's streams pay into the same account, but only those wait that do this.
        """
        per_s = IN_VAIN_PER_S * min(max(self.streams, 1), IN_VAIN_STREAMS)
        now_s, at_once_s = self._clock(), IN_VAIN_AT_ONCE / IN_VAIN_PER_S
        atoned_s = max(self._atoned_s, now_s) + 1 / per_s
        self._atoned_s = min(atoned_s, now_s + at_once_s + MOST_PAUSE_S)
        return self._atoned_s - at_once_s

    @property
    def is_forgettable(self) -> bool:
        """Whether a new one would do as well."""
        atoned = self._atoned_s <= self._clock()
        return not self.streams and not self.nbytes and atoned and self._bucket.is_full

    def hold(self, nbytes: int) -> None:
        """Bytes that are held from now on. Raises `FrameError` (OVERLOADED) when it is too much."""
        if self.nbytes + nbytes > self.client.max_bytes_in_flight:
            raise self._refused(
                Refusal.BYTES,
                f"{self.nbytes} bytes of this client are unanswered, with this frame "
                f"{self.nbytes + nbytes}; it may have {self.client.max_bytes_in_flight:.0f}",
            )
        self.nbytes += nbytes

    def release(self, nbytes: int) -> None:
        """Bytes that are not held any more."""
        self.nbytes -= nbytes

    def count_refused(self, reason: Refusal) -> None:
        """Notes that something else was refused to this client."""
        self._refusals.count(reason)

    def _refused(self, reason: Refusal, why: str) -> FrameError:
        self._refusals.count(reason)
        return FrameError(pb.OVERLOADED, why)


class StreamUse:
    """One stream of a client, as far as it wastes the worker's time."""

    def __init__(self, use: ClientUse, clock: Clock = time.monotonic) -> None:
        self._use, self._clock = use, clock
        self._probes = TokenBucket(PROBES_PER_S, clock)
        self._until_s = -math.inf

    def in_vain(self) -> None:
        """It sent a message that brought no frame."""
        self._until_s = max(self._until_s, self._use.in_vain())

    def probe(self) -> None:
        """It sent a probe."""
        if not self._probes.take():
            self.in_vain()

    @property
    def pause_s(self) -> float:
        """Seconds in which nothing is to be read from it, 0 where it may go on."""
        return max(self._until_s - self._clock(), 0.0)


class PlaceKeeper(Protocol):
    """Whoever gives out places."""

    def __len__(self) -> int:
        """How many are taken from here."""
        ...

    def taken(self, client: Client) -> AbstractAsyncContextManager[None]:
        """A place while the block runs; `AccessError` (RESOURCE_EXHAUSTED) if none is left."""
        ...


class Places:
    """So many at a time, of all clients together and of each: streams, or downloads."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most, self._most_per_client = most, most_per_client
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many are taken."""
        return self._taken.total()

    def take(self, client: Client) -> None:
        """A place until `leave`. Raises `AccessError` (RESOURCE_EXHAUSTED) if none is left.

        Clients without a name share those of their address, so that opening more connections gains
        nobody more.
        """
        most = self._most_per_client if client.max_streams is None else client.max_streams
        if self._taken[client.name] >= most:
            raise AccessError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                Refusal.CLIENT_STREAMS,
                f"{NO_ROOM}: {client.name} has {most} streams, its limit",
            )
        if len(self) >= self._most:
            raise AccessError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                Refusal.STREAMS,
                f"{NO_ROOM}: the worker has {self._most} streams, its limit",
            )
        self._taken[client.name] += 1

    def leave(self, client: Client) -> None:
        """The client has one place less."""
        self._taken[client.name] -= 1
        if not self._taken[client.name]:
            del self._taken[client.name]

    @asynccontextmanager
    async def taken(self, client: Client) -> AsyncIterator[None]:
        """See `PlaceKeeper`."""
        self.take(client)
        try:
            yield
        finally:
            self.leave(client)


class ClientUses:
    """Each client's use, shared by its streams. Those without a name share that of their address.

    A use is kept for as long as the client has a stream, and then until its limits have forgotten
    what it did: whoever connects anew gains nothing by that, and nobody is remembered for long.
    """

    def __init__(self, refusals: Refusals, clock: Clock = time.monotonic) -> None:
        self._refusals, self._clock = refusals, clock
        self._known: dict[Client, ClientUse] = {}

    @property
    def nbytes(self) -> int:
        """What all of them hold."""
        return sum(use.nbytes for use in self._known.values())

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._known)

    @contextmanager
    def of(self, client: Client) -> Iterator[ClientUse]:
        """Where the messages of this client are counted, while it has one stream more."""
        for other, use in list(self._known.items()):
            if use.is_forgettable:
                del self._known[other]
        use = self._known.setdefault(client, ClientUse(client, self._refusals, self._clock))
        use.streams += 1
        try:
            yield use
        finally:
            use.streams -= 1
            if use.is_forgettable:
                del self._known[client]
