"""A worker: bundles, an engine and a gRPC server, from start to drained stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import torch
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.energy.gpu_state import GpuState, open_gpu_state
from splitpoint.partition.profile.profile import load_profile
from splitpoint.partition.run.torch_chain import describe_device, pick_devices
from splitpoint.proto.limits import server_options

from .access.refusals import Refusals
from .access.security import Security
from .brief_log import keep_log_brief
from .bundle_watch import BundleWatch
from .compute.kept_times import KeptTimes
from .compute.load import load_model
from .compute.precision import AUTO, check_precision
from .compute.served_model import ServedModel
from .engine.engine import Engine
from .engine.engines import Engines
from .engine.measure_again import measure_again
from .errors import Interrupted, ServeError
from .figures import Figures
from .frames.decoders import Decoders
from .frames.lifetime import StreamLimits
from .model_set import ModelSet, frame_bytes
from .schedule.outlook import Batching
from .wire.health import Health
from .wire.service import SplitService

log = logging.getLogger("splitpoint.cloud")

if TYPE_CHECKING:
    from .frames.tracing import FrameTraces
    from .metrics_server import MetricsServer

DEFAULT_LISTEN = "127.0.0.1:7070"
# gRPC's limit is set before it listens: room for the models that a watched folder may bring.
WATCHED_FRAME_BYTES = 256 << 20
HEALTH_S = 0.25  # how often it is looked at whether the engine can compute


class Worker:
    """Serves bundles at `listen` ("HOST:PORT", port 0 for any free one) until it is drained.

    `async with Worker([...]) as worker` listens, loads and warms up, and its health is NOT_SERVING
    until then; leaving it drains. Bundles in the folder `watch` come and go while it runs.
    `metrics` is where Prometheus may ask, "" for nowhere; `traces` makes spans of frames. Beyond
    loopback it needs `security`, which says whom it lets in; `limits` bounds what each may do.
    Times of models that were measured before are taken from `kept`, and kept there.
    Raises `BundleError`, `TlsError` or `ServeError` for what cannot be served, with nothing left
    half-started.
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
        watch: Path | None = None,
        metrics: str = "",
        traces: FrameTraces | None = None,
        security: Security | None = None,
        limits: StreamLimits | None = None,
        kept: KeptTimes | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._bundles, self._listen, self._device_name = bundles, listen, device
        self._max_batch, self._max_queued_bytes = max_batch, max_queued_bytes
        self._runtime, self._precision, self._batching = runtime, precision, batching
        self._grace_s, self._reflection, self._progress = grace_s, reflection, progress
        self._profiles, self._watch_folder, self._metrics_listen = profiles, watch, metrics
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics: MetricsServer | None = None
        self._traces, self._kept = traces, kept or KeptTimes()
        self._stopping = False
        self._security, self._limits = security or Security(), limits or StreamLimits()
        self.models: dict[str, ServedModel] = {}
        self.figures = Figures()
        self.address = self.metrics_address = ""

    async def __aenter__(self) -> Worker:
        """Starts the engine, listens and loads the bundles."""
        self._security.check_listen(self._listen)
        self._credentials, access = self._security.server_credentials(), self._security.access()
        self._devices = pick_devices(self._device_name)
        check_precision(self._precision, self._devices[0])
        self._given = {(found := load_profile(path)).digest: found for path in self._profiles}
        opened = [
            await asyncio.to_thread(open_bundle, folder, verify_files=False)
            for folder in self._bundles
        ]
        sizes = [frame_bytes(bundle) for bundle in opened]
        if self._watch_folder is not None:
            sizes.append(WATCHED_FRAME_BYTES)
        if not sizes:
            raise ServeError("there is nothing to serve", "name a bundle, or a folder to --watch")
        self._engine = Engines([
            Engine(
                max_batch=self._max_batch,
                max_queued_bytes=self._max_queued_bytes // len(self._devices),
                batching=self._batching,
            )
            for _ in self._devices
        ])  # fmt: skip
        self._decoders = Decoders(max(2, (os.cpu_count() or 2) // 2), self._max_queued_bytes)
        self._service = SplitService(
            self.models,
            self._engine,
            self._decoders,
            _describe(self._devices),
            access=access,
            limits=self._limits,
            figures=self.figures,
            traces=self._traces,
        )
        self._health = Health()
        # Without a limit for all calls: gRPC counts those, too, whose clients do not let their
        # answers through, for as long as their connections last. Each method has its own places.
        self._server = grpc.aio.server(
            options=server_options(max(sizes), self._limits.max_streams_per_client)
        )
        try:
            await self._listen_for_clients()
            await self._load_all(opened, max(sizes))
        except BaseException:
            await self._stop(0.0)
            raise
        return self

    @property
    def refusals(self) -> Refusals:
        """Who was sent away, and why."""
        return self.figures.refusals

    async def _listen_for_clients(self) -> None:
        """They are told that the worker is not ready yet."""
        keep_log_brief()
        self._server.add_generic_rpc_handlers((self._service.handler(),))
        self._server.add_generic_rpc_handlers((self._health.handler(),))
        if self._reflection:
            self._add_reflection()
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._listen)
            else:
                port = self._server.add_secure_port(self._listen, self._credentials)
        except RuntimeError as error:
            raise ServeError(
                f"cannot listen on {self._listen}",
                "is the port in use? choose another with --listen HOST:PORT",
            ) from error
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        self._engine.start()
        await self._server.start()
        if self._metrics_listen:
            self._serve_metrics()

    async def _load_all(self, bundles: Sequence[Bundle], max_frame_bytes: int) -> None:
        model_set = self._model_set = ModelSet(
            self.models,
            load=self._load,
            engine=self._engine,
            service=self._service,
            figures=self.figures,
            max_frame_bytes=max_frame_bytes,
            changed=self._changed,
        )
        for bundle in bundles:
            await model_set.add(bundle.folder, keep=True)
        if self._watch_folder is not None:
            watch = BundleWatch(
                self._watch_folder,
                model_set.add,
                lambda digest: model_set.remove(digest, self._grace_s),
            )
            await watch.look(first=True)
            self._tasks.append(asyncio.create_task(watch.run(), name="watch-bundles"))
        for digest in self._given.keys() - self.models.keys():
            raise ServeError(
                f"a profile is of the bundle {digest[:12]}, which is not served",
                "give profiles of the bundles that are",
            )
        again = measure_again(self.models, self._engine)
        self._tasks.append(asyncio.create_task(again, name="measure-again"))
        self._service.open = True
        self._tell_health()
        self._tasks.append(asyncio.create_task(self._follow_health(), name="health"))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answers what it has taken, then stops."""
        self._health.stop()
        await self._service.drain(self._grace_s)
        await self._stop(1.0)

    async def _stop(self, grace_s: float) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._engine.stop()
        await self._server.stop(grace_s)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        self._decoders.shutdown()

    def _load(self, folder: Path, number: int) -> ServedModel:
        return load_model(
            folder,
            self._devices[number],
            runtime=self._runtime,
            precision=self._precision,
            max_batch=self._max_batch,
            profiles=self._given,
            progress=self._progress,
            kept=self._kept,
            check=self._check_stopping,
        )

    def _check_stopping(self) -> None:
        if self._stopping:
            raise Interrupted("the worker is stopping")

    async def _changed(self, what: str) -> None:
        """Without any model, others should be asked."""
        if self._service.open:
            self._progress(what)
            self._tell_health()

    async def _follow_health(self) -> None:
        """Where kernels hang or fail for good, others should be asked."""
        could = True
        while True:
            await asyncio.sleep(HEALTH_S)
            if could != (could := self._engine.can_compute):
                self._progress(f"computing works {'again' if could else 'no longer'}")
                self._tell_health()

    def _tell_health(self) -> None:
        self._health.set(serving=bool(self.models) and self._engine.can_compute)

    def _serve_metrics(self) -> None:
        from .metrics import WorkerCollector  # prometheus-client
        from .metrics_server import MetricsServer

        collector = WorkerCollector(
            self.figures, self.models, self._engine, self._service.quarantine, self._gpus()
        )
        self._metrics = MetricsServer(self._metrics_listen, collector)
        self.metrics_address = self._metrics.address

    def _gpus(self) -> list[GpuState]:
        if self._devices[0].type != "cuda":
            return []
        uuids = [torch.cuda.get_device_properties(device).uuid for device in self._devices]
        states = [open_gpu_state(f"GPU-{uuid}") for uuid in uuids]
        return [state for state in states if state is not None]

    def _add_reflection(self) -> None:
        from .wire.reflection import Reflection  # only the cloud extra brings it

        self._server.add_generic_rpc_handlers((Reflection().handler(),))


def _describe(devices: Sequence[torch.device]) -> str:
    """As edges and people are told."""
    one = describe_device(devices[0])
    return one if len(devices) == 1 else f"{len(devices)} x {one}"
