"""The transport between machines."""

from __future__ import annotations

from typing import Any

from splitpoint.proto.limits import SERVICE, channel_options

from .credentials import Credentials
from .transport import Call


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
            call: Call = channel.stream_stream(path)(**how)
        else:
            call = channel.unary_stream(path)(request, **how)
        return call

    async def close(self, grace_s: float | None = None) -> None:
        """Closes the channel."""
        await self._channel.close(grace_s)
