"""A call that came through Ray Serve, in the shape of gRPC's own: the service need not know.

Ray gives an iterator of what the client sends and wants a generator of what is answered; gRPC gives
a context to read from and write to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from splitpoint.proto.tasks import cancel_and_wait

from ..wire.abort import Aborted

MOST_WAITING = 16


class CallInfo(Protocol):
    """What Ray tells of a call, and takes as its status (`RayServegRPCContext`)."""

    def peer(self) -> str:
        """Who calls."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """The call's status."""
        ...

    def set_details(self, details: str) -> None:
        """And why."""
        ...

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What the client sent with the call."""
        ...


class RawMessage:
    """Bytes to be sent as they are: Ray asks an answer for this method."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """The bytes."""
        return self._data


class RayCall:
    """The context of a call. Many answers are given by `answers`, until `close` or the end."""

    def __init__(self, messages: AsyncIterator[bytes], info: CallInfo) -> None:
        self._info, self._messages = info, messages
        self._next: asyncio.Task[Any] | None = None
        self._closed, self._ended = asyncio.Event(), False
        self._written: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._space = asyncio.Event()

    def peer(self) -> str:
        """The client's address, as the proxy sees it."""
        return self._info.peer()

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What the client sent with the call, its token among it."""
        return self._info.invocation_metadata()

    def auth_context(self) -> dict[str, list[bytes]]:
        """Nothing: Ray's proxy has no TLS, and what ends it in front of that proves nothing."""
        return {}

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status; does not return."""
        self._info.set_code(code)
        self._info.set_details(details)
        raise Aborted(details)

    async def read(self) -> Any:
        """The next message; `grpc.aio.EOF` at the end, or once the call is closed."""
        if self._next is None:
            self._next = asyncio.create_task(_next(self._messages))
        closed = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait((self._next, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
        if not self._next.done():
            return grpc.aio.EOF
        data, self._next = self._next.result(), None
        self._ended = data is grpc.aio.EOF
        return data

    async def write(self, data: bytes | Message) -> None:
        """Hands a message to Ray, once it has taken most of what was written before."""
        while self._written.qsize() >= MOST_WAITING:
            self._space.clear()
            await self._space.wait()
        self._written.put_nowait(data if isinstance(data, bytes) else data.SerializeToString())

    def close(self) -> None:
        """Nothing more is read; what was taken is still answered."""
        self._closed.set()

    def cancelled(self) -> bool:
        """Whether the client has left: who has said his last still reads."""
        return self._ended and bool(getattr(self._messages, "is_cancelled", lambda: False)())

    def done(self) -> bool:
        """As `cancelled`: the status is sent when `answers` has ended."""
        return self.cancelled()

    async def answers(self, work: Coroutine[Any, Any, None]) -> AsyncGenerator[RawMessage, None]:
        """Runs `work`, which writes to this call, and gives what it writes."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._written.put_nowait(None))
        try:
            while (data := await self._written.get()) is not None:
                self._space.set()
                yield RawMessage(data)
            await task
        finally:
            await cancel_and_wait(task, self._next)


async def _next(messages: AsyncIterator[bytes]) -> Any:
    """The next message, or EOF."""
    async for data in messages:
        return data
    return grpc.aio.EOF


async def one(data: bytes) -> AsyncIterator[bytes]:
    """A client that sends one message, and then no more."""
    yield data
