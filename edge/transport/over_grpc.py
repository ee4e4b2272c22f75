"""The transport between machines."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import grpc
from splitpoint.proto.limits import SERVICE, channel_options

from .credentials import Credentials
from .transport import Call


class GrpcCall:
    """A call on a channel of `grpc.aio`, whose end is what the worker said of it.

    Where the worker ends a call while a message is written, `grpc.aio` puts INTERNAL in the place
    of the status that has come (https://github.com/grpc/grpc/issues/36066): of refusals at the
    door, one to four in a hundred. So the status is kept at the moment when it comes.
    """

    def __init__(self, call: Any) -> None:
        self._call, self._end = call, _End()
        call.add_done_callback(self._end.keep)  # no method of this object: that would be a cycle

    async def write(self, message: bytes) -> None:
        """See `Call`."""
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise self._end.in_place_of(error) from None

    async def read(self) -> bytes | Any:
        """See `Call`."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._end.in_place_of(error) from None

    async def code(self) -> grpc.StatusCode:
        """See `Call`."""
        code: grpc.StatusCode = await self._call.code()
        return self._end.code or code

    async def details(self) -> str:
        """See `Call`."""
        details: str | None = await self._call.details()
        return (details if self._end.code is None else self._end.details) or ""

    def cancel(self) -> Any:
        """See `Call`."""
        return self._call.cancel()


class _End:
    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details: str | None = None

    def keep(self, call: Any) -> None:
        """Called by gRPC once, when the call has a status: asking for it then waits for nothing."""
        asking = self._ask(call)
        with suppress(StopIteration):
            asking.send(None)
        asking.close()

    async def _ask(self, call: Any) -> None:
        code, self.details = await call.code(), await call.details()
        self.code = code

    def in_place_of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        if self.code is None:
            return error
        none = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(self.code, none, none, details=self.details)


class GrpcTransport:
    """See `Transport`. Raises `TlsError` or `AgentError` for credentials that cannot be used."""

    def __init__(self, server: str, max_message_bytes: int, credentials: Credentials) -> None:
        self._metadata = credentials.metadata
        self._channel = credentials.open_channel(server, channel_options(max_message_bytes))

    def open(
        self, method: str, request: bytes | None = None, timeout_s: float | None = None
    ) -> Call:
        """A call on gRPC's channel, of plain bytes."""
        path = f"/{SERVICE}/{method}"
        channel: Any = self._channel  # whose types know no calls of plain bytes
        how = {"timeout": timeout_s, "metadata": self._metadata}
        if request is None:
            return GrpcCall(channel.stream_stream(path)(**how))
        return GrpcCall(channel.unary_stream(path)(request, **how))

    async def close(self, grace_s: float | None = None) -> None:
        """Closes the channel."""
        await self._channel.close(grace_s)
