"""A call in memory, with both of its ends, and the link in between."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from splitpoint.proto.tasks import cancel_and_wait

Status = tuple[grpc.StatusCode, str]
"""How a call ends, and the worker's words for it."""

DONE: Status = (grpc.StatusCode.OK, "")

_LATE: Status = (grpc.StatusCode.DEADLINE_EXCEEDED, "the call took too long")

_Queue = asyncio.Queue[bytes | Status]


class FakeLink:
    """The network to a worker. Everything may be changed at any time, and counts from then on.

    A message keeps the uplink busy for its bytes' time, and takes half a round trip. While the link
    is stalled nothing arrives at either end, and nothing is lost.
    """

    def __init__(self) -> None:
        self.uplink_mbps, self.round_trip_ms = math.inf, 0.0
        self._flows = asyncio.Event()
        self._flows.set()

    def stall(self) -> None:
        """Nothing arrives any more."""
        self._flows.clear()

    def go_on(self) -> None:
        """What is under way arrives, and all that follows."""
        self._flows.set()

    async def carry(self, sent: _Queue, arrived: _Queue, *, up: bool) -> None:
        """Brings what is sent to the other end, in its order, until it is cancelled."""
        under_way: asyncio.Queue[tuple[float, bytes | Status]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(under_way, arrived))
        now_s = asyncio.get_running_loop().time
        try:
            while True:
                message = await sent.get()
                if up and self.uplink_mbps < math.inf:
                    await asyncio.sleep(len(message) * 8e-6 / self.uplink_mbps)
                under_way.put_nowait((now_s() + self.round_trip_ms / 2e3, message))
        finally:
            await cancel_and_wait(arriving)

    async def _arrive(
        self, under_way: asyncio.Queue[tuple[float, bytes | Status]], arrived: _Queue
    ) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            due_s, message = await under_way.get()
            if due_s > now_s():
                await asyncio.sleep(due_s - now_s())
            await self._flows.wait()
            arrived.put_nowait(message)


class FakeCall:
    """See `Call`. The worker's end is `serve`, which has `arrived` and `send`.

    What `serve` returns ends the call, once all that was sent before has arrived.
    """

    def __init__(self, link: FakeLink, serve: Callable[[FakeCall], Awaitable[Status]]) -> None:
        self._sent, self._arrived = _Queue(), _Queue()
        self._answered, self._received = _Queue(), _Queue()
        self._status: Status | None = None
        self._tasks = [
            asyncio.create_task(link.carry(self._sent, self._arrived, up=True)),
            asyncio.create_task(link.carry(self._answered, self._received, up=False)),
            asyncio.create_task(self._run(serve)),
        ]

    # The client's end. -----------------------------------------------------------------------

    async def write(self, message: bytes) -> None:
        """Sends a message; as with gRPC, this says nothing of its arrival."""
        if self._status is not None:
            raise asyncio.InvalidStateError("the call has ended")
        self._sent.put_nowait(message)

    async def read(self) -> bytes | Any:
        """The next message, or EOF."""
        message = await self._received.get()
        if isinstance(message, bytes):
            return message
        self._received.put_nowait(message)  # for whoever reads once more
        self._status = self._status or message
        code, details = message
        if code is grpc.StatusCode.OK:
            return grpc.aio.EOF
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    async def code(self) -> grpc.StatusCode:
        """How it ended; OK while it has not."""
        return (self._status or DONE)[0]

    async def details(self) -> str:
        """Why."""
        return (self._status or DONE)[1]

    def cancel(self) -> None:
        """The client leaves."""
        self.end((grpc.StatusCode.CANCELLED, "cancelled"))

    # The worker's end. -----------------------------------------------------------------------

    async def arrived(self) -> bytes:
        """The client's next message."""
        message = await self._arrived.get()
        assert isinstance(message, bytes)
        return message

    def send(self, message: bytes) -> None:
        """Sends one to the client."""
        self._answered.put_nowait(message)

    def end(self, status: Status) -> None:
        """Ends it at once: what is under way is lost."""
        if self._status is None:
            self._status = status
            self._received.put_nowait(status)
        for task in self._tasks:
            task.cancel()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing of it is left."""
        return all(task.done() for task in self._tasks)

    async def ended(self) -> None:
        """Until nothing of it is left."""
        await cancel_and_wait(*self._tasks)

    async def _run(self, serve: Callable[[FakeCall], Awaitable[Status]]) -> None:
        self._answered.put_nowait(await serve(self))


class FakeTransport:
    """See `Transport`; `begin` makes the call of a method with its one request, if it has one."""

    def __init__(self, begin: Callable[[str, bytes | None], FakeCall]) -> None:
        self._begin = begin
        self._calls: list[FakeCall] = []

    def open(
        self, method: str, request: bytes | None = None, timeout_s: float | None = None
    ) -> FakeCall:
        """A call to the worker."""
        call = self._begin(method, request)
        self._calls = [known for known in self._calls if not known.is_over] + [call]
        if timeout_s is not None:
            asyncio.get_running_loop().call_later(timeout_s, call.end, _LATE)
        return call

    async def close(self, grace_s: float | None = None) -> None:
        """Ends the calls at once."""
        for call in self._calls:
            call.cancel()
            await call.ended()
