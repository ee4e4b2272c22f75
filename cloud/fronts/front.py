"""What takes clients' calls: the service of this process, or ingest processes beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from ..backend import Backend
from ..compute.served_model import ServedModel
from ..options import WorkerOptions
from ..wire.health import Health
from ..wire.listen import LAST_ANSWERS_S, listen_at, new_server
from ..wire.stream_rows import stream_rows


class Front(Protocol):
    """Clients that come before it is `open` are told that models are being loaded."""

    async def offer(self, model: ServedModel) -> None:
        """The model is served from now on; `ServeError` where it cannot be."""
        ...

    async def withdraw(self, model: ServedModel, grace_s: float) -> None:
        """It is not; returns when its streams have ended."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Nothing new is taken; returns when all frames are answered, or after `grace_s`."""
        ...

    async def count(self) -> list[dict[str, Any]]:
        """Open streams, as they are shown; the worker's figures are up to date by then."""
        ...

    def open(self) -> None:
        """Clients are let in."""
        ...

    def tell_health(self, *, serving: bool) -> None:
        """Whoever asks for the health is told this."""
        ...

    def stop_health(self) -> None:
        """NOT_SERVING from now on."""
        ...


@dataclass(frozen=True, slots=True)
class OwnFront:
    """The service of this process."""

    backend: Backend
    health: Health

    async def offer(self, model: ServedModel) -> None:
        """The service finds it among the backend's."""

    async def withdraw(self, model: ServedModel, grace_s: float) -> None:
        """See `Front`."""
        await self.backend.service.withdraw(model, grace_s)

    async def drain(self, grace_s: float) -> None:
        """See `Front`."""
        await self.backend.service.drain(grace_s)

    async def count(self) -> list[dict[str, Any]]:
        """See `Front`."""
        return stream_rows(self.backend.service.streams)

    def open(self) -> None:
        """See `Front`."""
        self.backend.service.open = True

    def tell_health(self, *, serving: bool) -> None:
        """See `Front`."""
        self.health.set(serving=serving)

    def stop_health(self) -> None:
        """See `Front`; those that watch it would keep the server waiting."""
        self.health.stop()


@asynccontextmanager
async def own_front(
    options: WorkerOptions,
    backend: Backend,
    credentials: grpc.ServerCredentials | None,
    most_bytes: int,
) -> AsyncIterator[tuple[Front, str]]:
    """The front and HOST:PORT where it listens; leaving it gives answers a moment to get away."""
    front = OwnFront(backend, Health())
    server = new_server(
        (backend.service.handler(), front.health.handler()),
        most_bytes,
        options.limits.max_streams_per_client,
        reflection=options.reflection,
    )
    try:
        address = listen_at(server, options.listen, credentials)
        await server.start()
        yield front, address
    finally:
        front.stop_health()
        await server.stop(LAST_ANSWERS_S)
