"""The seam at the network: what the agent needs to call a worker, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc


class Call(Protocol):
    """One call under way. Where it fails, what is called here raises `grpc.RpcError`."""

    async def write(self, message: bytes) -> None:
        """Sends a message; `asyncio.InvalidStateError` once the call has ended."""
        ...

    async def read(self) -> bytes | Any:
        """The next message, or `grpc.aio.EOF` after the last."""
        ...

    async def code(self) -> grpc.StatusCode:
        """How it ended, once it has."""
        ...

    async def details(self) -> str:
        """The worker's words for that."""
        ...

    def cancel(self) -> Any:
        """Ends it from here."""
        ...


class Transport(Protocol):
    """A connection to one worker."""

    def open(
        self, method: str, request: bytes | None = None, timeout_s: float | None = None
    ) -> Call:
        """Begins a call of a method: Describe, Fetch or Infer.

        `request` is the one message that it takes; without one they are written. It may take
        `timeout_s` in all.
        """
        ...

    async def close(self, grace_s: float | None = None) -> None:
        """Ends every call, once `grace_s` are over, and the connection."""
        ...


Connect = Callable[[str, int], Transport]
"""Makes a transport to HOST:PORT, for messages of at most so many bytes."""
