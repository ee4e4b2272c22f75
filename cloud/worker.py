"""A worker: bundles, an engine and a gRPC server, from start to drained stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from splitpoint.partition.profile import load_profile
from splitpoint.partition.torch_chain import describe_device, pick_device
from splitpoint.proto.limits import (
    MAX_BATCH_PER_FRAME,
    SERVICE,
    max_frame_bytes,
    server_options,
)

from .engine import Engine
from .errors import ServeError
from .load_model import load_model
from .precision import AUTO, check_precision
from .request import ServedModel
from .schedule import Batching
from .service import SplitService

log = logging.getLogger("splitpoint.cloud")

DEFAULT_LISTEN = "127.0.0.1:7070"


class Worker:
    """Serves bundles at `listen` ("HOST:PORT", port 0 for any free one) until it is drained.

    `async with Worker([...]) as worker` loads, warms up and listens; leaving it drains. Raises
    `BundleError` or `ServeError` for what cannot be served, with nothing left half-started.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        *,
        listen: str = DEFAULT_LISTEN,
        device: str = "auto",
        max_batch: int = 128,
        runtime: str = AUTO,
        precision: str = AUTO,
        batching: Batching = Batching.SUFFIX,
        max_queued_bytes: int = 1 << 30,
        grace_s: float = 10.0,
        reflection: bool = False,
        profiles: Sequence[Path] = (),
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._bundles, self._listen, self._device_name = bundles, listen, device
        self._max_batch, self._max_queued_bytes = max_batch, max_queued_bytes
        self._runtime, self._precision, self._batching = runtime, precision, batching
        self._grace_s, self._reflection, self._progress = grace_s, reflection, progress
        self._profiles = profiles
        self.models: dict[str, ServedModel] = {}
        self.address = ""

    async def __aenter__(self) -> Worker:
        """Loads the bundles, starts the engine and listens."""
        self._device = pick_device(self._device_name)
        check_precision(self._precision, self._device)
        self._given = {(found := load_profile(path)).digest: found for path in self._profiles}
        self._engine = Engine(
            max_batch=self._max_batch,
            max_queued_bytes=self._max_queued_bytes,
            batching=self._batching,
        )
        try:
            await self._start()
        except BaseException:
            await self._engine.stop()
            raise
        return self

    async def _start(self) -> None:
        for folder in self._bundles:
            await self._engine.on_compute_thread(self._load, folder)
        for digest in self._given:
            raise ServeError(
                f"a profile is of the bundle {digest[:12]}, which is not served",
                "give profiles of the bundles that are",
            )
        self._decoders = ThreadPoolExecutor(
            max(2, (os.cpu_count() or 2) // 2), thread_name_prefix="splitpoint-decode"
        )
        self._service = SplitService(
            self.models, self._engine, self._decoders, describe_device(self._device)
        )
        largest = max(
            max_frame_bytes(model.boundaries, MAX_BATCH_PER_FRAME) for model in self.models.values()
        )
        self._server = grpc.aio.server(options=server_options(largest))
        self._server.add_generic_rpc_handlers((self._service.handler(),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._reflection:
            self._add_reflection()
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise ServeError(
                f"cannot listen on {self._listen}",
                "is the port in use? choose another with --listen HOST:PORT",
            ) from error
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        self._engine.start()
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answers what it has taken, then stops."""
        await self._health.enter_graceful_shutdown()
        await self._service.drain(self._grace_s)
        await self._engine.stop()
        await self._server.stop(1.0)
        self._decoders.shutdown()

    def _load(self, folder: Path) -> None:
        model = load_model(
            folder,
            self._device,
            runtime=self._runtime,
            precision=self._precision,
            max_batch=self._max_batch,
            profiles=self._given,
            progress=self._progress,
        )
        self.models[model.bundle.digest] = model

    def _add_reflection(self) -> None:
        from grpc_reflection.v1alpha import reflection  # only the cloud extra brings it

        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
