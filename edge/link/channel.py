"""The edge's connection to one worker: what it serves, its files, and streams of frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import DESCRIBE_BYTES, PROTOCOL
from splitpoint.proto.status import (
    ProtocolError,
    RefusedError,
    UnauthenticatedError,
    UnreachableError,
)
from splitpoint.proto.tasks import cancel_and_wait, within
from splitpoint.proto.tls import TlsError

from ..errors import AgentError
from ..transport.credentials import Credentials
from ..transport.over_grpc import GrpcTransport
from ..transport.transport import Connect, Transport
from .call_error import error_of_call
from .frame_stream import CONNECT_TIMEOUT_S, FrameStream

# A download that gets nothing for so long is given up; it goes on from there later.
STALL_S = 60.0
# Calls on a transport whose certificates were renewed may end on it.
LAST_CALLS_S = 600.0

M = TypeVar("M", bound=Message)


class WorkerChannel:
    """A connection to one worker at `server` ("HOST:PORT"). Close it when done.

    Where certificates or the token were renewed, the next call goes with the new ones. Raises
    `TlsError` or `AgentError` for `credentials` that cannot be used, and where that is so later,
    `UnauthenticatedError` from the call. `connect` takes the place of gRPC.
    """

    def __init__(
        self,
        server: str,
        max_message_bytes: int = DESCRIBE_BYTES,
        credentials: Credentials | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.server = server
        self._max_message_bytes, self._credentials = max_message_bytes, credentials or Credentials()
        self._connect = connect or partial(GrpcTransport, credentials=self._credentials)
        self._old: dict[Transport, asyncio.Task[None]] = {}  # which end with their last call
        self._open()

    def _open(self) -> None:
        contents = self._credentials.contents()
        self._transport = self._connect(self.server, self._max_message_bytes)
        self._contents = contents

    @property
    def outdated(self) -> bool:
        """Whether certificates or the token have changed since they were read."""
        return self._credentials.contents() != self._contents

    def _current(self) -> Transport:
        """The transport for a call, with what stands in the files now."""
        if self.outdated:
            old = self._transport
            try:
                self._open()
            except (TlsError, AgentError) as error:
                raise UnauthenticatedError(error.what, error.remedy) from error
            self._old[old] = asyncio.create_task(old.close(LAST_CALLS_S), name="end-channel")
            self._old[old].add_done_callback(lambda _: self._old.pop(old, None))
        return self._transport

    def again(self) -> WorkerChannel:
        """Another connection to the same address, which may lead to another machine by now."""
        return WorkerChannel(self.server, self._max_message_bytes, self._credentials, self._connect)

    async def describe(self) -> pb.DescribeReply:
        """What the worker serves; `UnreachableError` or `RefusedError` if it cannot be used."""
        asked = pb.DescribeRequest(protocol=PROTOCOL)
        replies = self._replies("Describe", asked, pb.DescribeReply, CONNECT_TIMEOUT_S)
        async with aclosing(replies):
            reply = await anext(replies, None)
            if reply is None or await anext(replies, None) is not None:
                raise ProtocolError(f"{self.server} did not say what it serves")
        if reply.protocol != PROTOCOL:
            raise RefusedError(
                f"{self.server} speaks protocol {reply.protocol}, this edge {PROTOCOL}",
                "install the same version of splitpoint at both ends",
            )
        return reply

    async def fetch(self, digest: str, sha256: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes of a bundle's file from `offset` on."""
        asked = pb.FetchRequest(digest=digest, sha256=sha256, offset=offset)
        async with aclosing(self._replies("Fetch", asked, pb.Chunk)) as chunks:
            async for chunk in chunks:
                if chunk.offset != offset:
                    raise ProtocolError(f"{self.server} sent bytes out of order")
                if not chunk.data:  # else they could come for ever, and the file never
                    raise ProtocolError(f"{self.server} sent a chunk of a file with nothing in it")
                offset += len(chunk.data)
                yield chunk.data

    async def _replies(
        self, method: str, asked: Message, kind: type[M], timeout_s: float | None = None
    ) -> AsyncGenerator[M, None]:
        call = self._current().open(method, asked.SerializeToString(), timeout_s)
        try:
            while (data := await within(STALL_S, call.read())) is not grpc.aio.EOF:
                yield kind.FromString(data)
        except asyncio.TimeoutError:
            raise UnreachableError(
                f"{self.server} has sent nothing of a file for {STALL_S:g} s", "check the network"
            ) from None
        except DecodeError as error:
            raise ProtocolError(f"{self.server} sent what is no {kind.__name__}") from error
        except grpc.RpcError as error:
            raise error_of_call(error, self.server) from error
        finally:
            call.cancel()

    async def open_stream(self, model: str, digest: str, client: str) -> FrameStream:
        """A stream for frames of one bundle, after the handshake and a look at the round trip."""
        hello = pb.Hello(protocol=PROTOCOL, model=model, digest=digest, client=client)
        return await FrameStream.opened(self.server, self._current().open("Infer"), hello)

    async def close(self) -> None:
        """Ends every call and closes the connection."""
        async with AsyncExitStack() as closing:  # all of them, whatever becomes of one
            closing.push_async_callback(self._transport.close)
            for old, ending in self._old.items():
                closing.push_async_callback(old.close)
                closing.push_async_callback(cancel_and_wait, ending)
