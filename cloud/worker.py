"""A worker: bundles, engines and a gRPC server, from start to drained stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .access.refusals import Refusals
from .backend import Backend
from .compute.loaded_model import LoadedModel
from .figures import Figures
from .options import WorkerOptions
from .session import Session, serving

if TYPE_CHECKING:
    from .frames.tracing import FrameTraces

LOOK_S = 0.25  # how often it is looked at whether a device is lost


class Worker:
    """Serves bundles until it is drained.

        async with Worker([Path("resnet50.split")], listen="0.0.0.0:7070", ...) as worker:
            print(worker.address)

    What it may be told are the fields of `WorkerOptions`, by name or as `options`. Entering it
    listens, loads and warms up, and its health is NOT_SERVING until then; leaving it drains.
    `traces` makes spans of frames; `progress` is told what a person waits for. Raises
    `BundleError`, `TlsError` or `ServeError` for what cannot be served, with nothing left
    half-started.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        options: WorkerOptions | None = None,
        *,
        traces: FrameTraces | None = None,
        progress: Callable[[str], None] = lambda line: None,
        **named: Any,
    ) -> None:
        if options is not None and named:
            raise TypeError("give options, or their names and values, not both")
        self._bundles, self._traces, self._progress = bundles, traces, progress
        self._options = WorkerOptions(**named) if options is None else options
        self._closing = AsyncExitStack()
        self._entered: Session | None = None

    async def __aenter__(self) -> Worker:
        """Starts the engines, listens and loads the bundles."""
        self._entered = await self._closing.enter_async_context(
            serving(self._bundles, self._options, self._progress, self._traces)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answers what it has taken, then stops."""
        await self._closing.aclose()

    @property
    def _session(self) -> Session:
        if self._entered is None:
            raise RuntimeError("a worker has no address and no models before it is entered")
        return self._entered

    @property
    def address(self) -> str:
        """HOST:PORT where it listens."""
        return self._session.address

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of its metrics, "" where there are none."""
        return self._session.metrics_address

    @property
    def http_address(self) -> str:
        """HOST:PORT of `/healthz` and `/stats`, "" where there are none."""
        return self._session.http_address

    @property
    def backend(self) -> Backend:
        """What it is made of behind its address."""
        return self._session.backend

    async def until_lost(self) -> str:
        """Why this process has to end and be started again, once a device is lost to it."""
        while True:
            if why := self.backend.engine.lost:
                return why
            await asyncio.sleep(LOOK_S)

    @property
    def models(self) -> dict[str, LoadedModel]:
        """What is served, by digest."""
        return self.backend.models

    @property
    def figures(self) -> Figures:
        """What is counted."""
        return self.backend.service.services.figures

    @property
    def refusals(self) -> Refusals:
        """Who was sent away, and why."""
        return self.figures.refusals
