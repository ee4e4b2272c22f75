"""The edge's connection to one worker: what it serves, its files, and streams of frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import DESCRIBE_BYTES, PROTOCOL, SERVICE, channel_options
from splitpoint.proto.status import (
    ProtocolError,
    RefusedError,
    UnauthenticatedError,
    UnreachableError,
    error_of_call,
)
from splitpoint.proto.tls import TlsError

from ..errors import AgentError
from .credentials import Credentials
from .frame_stream import CONNECT_TIMEOUT_S, FrameStream

# A download that gets nothing for so long is given up; it goes on from there later.
STALL_S = 60.0
# Calls on a channel whose certificates were renewed may end on it.
LAST_CALLS_S = 600.0


class WorkerChannel:
    """A connection to one worker at `server` ("HOST:PORT"). Close it when done.

    Where certificates or the token were renewed, the next call goes with the new ones. Raises
    `TlsError` or `AgentError` for `credentials` that cannot be used, and where that is so later,
    `UnauthenticatedError` from the call.
    """

    def __init__(
        self,
        server: str,
        max_message_bytes: int = DESCRIBE_BYTES,
        credentials: Credentials | None = None,
    ) -> None:
        self.server = server
        self._max_message_bytes, self._credentials = max_message_bytes, credentials or Credentials()
        self._old: dict[grpc.aio.Channel, asyncio.Task[None]] = {}  # which end with their last call
        self._open()

    def _open(self) -> None:
        contents = self._credentials.contents()
        self._metadata = self._credentials.metadata
        self._channel = self._credentials.open_channel(
            self.server, channel_options(self._max_message_bytes)
        )
        self._contents = contents

    @property
    def outdated(self) -> bool:
        """Whether certificates or the token have changed since they were read."""
        return self._credentials.contents() != self._contents

    def _current(self) -> grpc.aio.Channel:
        """The channel for a call, with what stands in the files now."""
        if self.outdated:
            old = self._channel
            try:
                self._open()
            except (TlsError, AgentError) as error:
                raise UnauthenticatedError(error.what, error.remedy) from error
            self._old[old] = asyncio.create_task(old.close(LAST_CALLS_S), name="end-channel")
            self._old[old].add_done_callback(lambda _: self._old.pop(old, None))
        return self._channel

    def again(self) -> WorkerChannel:
        """Another connection to the same address, which may lead to another machine by now."""
        return WorkerChannel(self.server, self._max_message_bytes, self._credentials)

    async def describe(self) -> pb.DescribeReply:
        """What the worker serves; `UnreachableError` or `RefusedError` if it cannot be used."""
        call = self._current().unary_unary(
            f"/{SERVICE}/Describe",
            request_serializer=pb.DescribeRequest.SerializeToString,
            response_deserializer=pb.DescribeReply.FromString,
        )
        try:
            reply: pb.DescribeReply = await call(
                pb.DescribeRequest(protocol=PROTOCOL),
                timeout=CONNECT_TIMEOUT_S,
                metadata=self._metadata,
            )
        except grpc.RpcError as error:
            raise error_of_call(error, self.server) from error
        if reply.protocol != PROTOCOL:
            raise RefusedError(
                f"{self.server} speaks protocol {reply.protocol}, this edge {PROTOCOL}",
                "install the same version of splitpoint at both ends",
            )
        return reply

    async def fetch(self, digest: str, sha256: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes of a bundle's file from `offset` on."""
        call = self._current().unary_stream(
            f"/{SERVICE}/Fetch",
            request_serializer=pb.FetchRequest.SerializeToString,
            response_deserializer=pb.Chunk.FromString,
        )(
            pb.FetchRequest(digest=digest, sha256=sha256, offset=offset),
            metadata=self._metadata,
        )
        try:
            while True:
                chunk: Any = await asyncio.wait_for(call.read(), STALL_S)
                if chunk is grpc.aio.EOF:
                    return
                if chunk.offset != offset:
                    raise ProtocolError(f"{self.server} sent bytes out of order")
                offset += len(chunk.data)
                yield chunk.data
        except asyncio.TimeoutError:
            raise UnreachableError(
                f"{self.server} has sent nothing of a file for {STALL_S:g} s", "check the network"
            ) from None
        except grpc.RpcError as error:
            raise error_of_call(error, self.server) from error
        finally:
            call.cancel()

    async def open_stream(self, model: str, digest: str, client: str) -> FrameStream:
        """A stream for frames of one bundle, after the handshake and a look at the round trip."""
        infer: Any = self._current().stream_stream(f"/{SERVICE}/Infer")
        stream = FrameStream(self.server, infer(metadata=self._metadata))
        hello = pb.Hello(protocol=PROTOCOL, model=model, digest=digest, client=client)
        try:
            await stream.start(hello)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def close(self) -> None:
        """Ends every call and closes the connection."""
        for old, ending in list(self._old.items()):
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            await old.close()
        await self._channel.close()
