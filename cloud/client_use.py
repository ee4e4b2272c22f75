"""What each client takes now, over all of its streams, and what is too much."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.status import NO_ROOM

from .access import AccessError
from .refusals import Refusal, Refusals
from .tokens import Client

Clock = Callable[[], float]

# A frame that is wrong in itself takes the worker as long to read as a good one. Of those, a client
# gets answers so many times a second, which no edge on a bad link comes near, and then waits.
FAULTS_PER_S, FAULTS_AT_ONCE = 100.0, 50


class TokenBucket:
    """Lets `per_s` through a second; after a pause as many at once as in one second, 1 at least."""

    def __init__(self, per_s: float, clock: Clock = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._most = max(per_s, 1.0)
        self._left, self._at_s = self._most, clock()

    def take(self) -> bool:
        """Whether one more may go now."""
        if math.isinf(self._per_s):
            return True
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class ClientUse:
    """One client's frames, in all of its streams."""

    def __init__(self, client: Client, refusals: Refusals, clock: Clock = time.monotonic) -> None:
        self.client = client
        self._refusals = refusals
        self._bucket = TokenBucket(client.max_requests_per_s, clock)
        self._clock, self._atoned_s = clock, -math.inf
        self.nbytes = 0  # of tensors in unanswered frames, decoded

    def request(self) -> None:
        """A frame has come. Raises `FrameError` (OVERLOADED) when it is one too many."""
        if not self._bucket.take():
            raise self._refused(
                Refusal.RATE,
                f"this client may ask {self.client.max_requests_per_s:g} times a second",
            )

    def fault(self) -> None:
        """A frame came that is wrong in itself."""
        self._atoned_s = max(self._atoned_s, self._clock()) + 1 / FAULTS_PER_S

    @property
    def pause_s(self) -> float:
        """Seconds in which nothing is to be read from the client, since it sends too much of that.

        One without limits has a use for each of its streams, and so a pause for each.
        """
        return max(self._atoned_s - self._clock() - FAULTS_AT_ONCE / FAULTS_PER_S, 0.0)

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


class Places:
    """So many at a time, of all clients together and of each: streams, or downloads."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most, self._most_per_client = most, most_per_client
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many are taken."""
        return self._taken.total()

    @contextmanager
    def taken(self, client: Client) -> Iterator[None]:
        """A place while the block runs. Raises `AccessError` (RESOURCE_EXHAUSTED) if none is left.

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
        try:
            yield
        finally:
            self._taken[client.name] -= 1
            if not self._taken[client.name]:
                del self._taken[client.name]


class ClientUses:
    """Each client's use, by its name. Those with limits are remembered between their streams.

    They stand in a file, so that there are never many; of the others only those that are here are
    known.
    """

    def __init__(self, refusals: Refusals, clock: Clock = time.monotonic) -> None:
        self._refusals, self._clock = refusals, clock
        self._limited: dict[str, ClientUse] = {}

    def of(self, client: Client) -> ClientUse:
        """Where this client's frames are counted."""
        if math.isinf(client.max_requests_per_s) and math.isinf(client.max_bytes_in_flight):
            return ClientUse(client, self._refusals, self._clock)  # nothing to add up
        if client.name not in self._limited:
            self._limited[client.name] = ClientUse(client, self._refusals, self._clock)
        return self._limited[client.name]
