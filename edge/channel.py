"""The edge's connection to one worker: what it serves, its files, and streams of frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import DESCRIBE_BYTES, PROTOCOL, SERVICE, channel_options
from splitpoint.proto.status import ProtocolError, RefusedError, error_of_call

from .credentials import Credentials
from .frame_stream import CONNECT_TIMEOUT_S, FrameStream


class WorkerChannel:
    """A connection to one worker at `server` ("HOST:PORT"). Close it when done.

    Raises `TlsError` or `AgentError` for `credentials` that cannot be used.
    """

    def __init__(
        self,
        server: str,
        max_message_bytes: int = DESCRIBE_BYTES,
        credentials: Credentials | None = None,
    ) -> None:
        self.server = server
        self._max_message_bytes, self._credentials = max_message_bytes, credentials or Credentials()
        self._channel = self._credentials.open_channel(server, channel_options(max_message_bytes))

    def again(self) -> WorkerChannel:
        """Another connection to the same address, which may lead to another machine by now."""
        return WorkerChannel(self.server, self._max_message_bytes, self._credentials)

    async def describe(self) -> pb.DescribeReply:
        """What the worker serves; `UnreachableError` or `RefusedError` if it cannot be used."""
        call = self._channel.unary_unary(
            f"/{SERVICE}/Describe",
            request_serializer=pb.DescribeRequest.SerializeToString,
            response_deserializer=pb.DescribeReply.FromString,
        )
        try:
            reply: pb.DescribeReply = await call(
                pb.DescribeRequest(protocol=PROTOCOL),
                timeout=CONNECT_TIMEOUT_S,
                metadata=self._credentials.metadata,
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
        call = self._channel.unary_stream(
            f"/{SERVICE}/Fetch",
            request_serializer=pb.FetchRequest.SerializeToString,
            response_deserializer=pb.Chunk.FromString,
        )(
            pb.FetchRequest(digest=digest, sha256=sha256, offset=offset),
            metadata=self._credentials.metadata,
        )
        try:
            async for chunk in call:
                if chunk.offset != offset:
                    raise ProtocolError(f"{self.server} sent bytes out of order")
                offset += len(chunk.data)
                yield chunk.data
        except grpc.RpcError as error:
            raise error_of_call(error, self.server) from error
        finally:
            call.cancel()

    async def open_stream(self, model: str, digest: str, client: str) -> FrameStream:
        """A stream for frames of one bundle, after the handshake and a look at the round trip."""
        infer: Any = self._channel.stream_stream(f"/{SERVICE}/Infer")
        stream = FrameStream(self.server, infer(metadata=self._credentials.metadata))
        hello = pb.Hello(protocol=PROTOCOL, model=model, digest=digest, client=client)
        try:
            await stream.start(hello)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def close(self) -> None:
        """Ends every call and closes the connection."""
        await self._channel.close()
