"""A worker between its start and its stop: what it opens, in the order in which it is closed again.

`serving` is that whole. Whatever goes wrong on the way closes what is open already.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.energy.gpu_state import GpuState
from splitpoint.partition.profile.profile import Profile, load_profile
from splitpoint.partition.run.torch_chain import pick_devices
from splitpoint.proto.tasks import cancel_and_wait, start_task

from .access.security import Security
from .announcing import announcer_of, check_announced
from .backend import Backend, assemble
from .bundle_watch import BundleWatch
from .compute.choose_chain import check_tuning
from .compute.load import Progress, load_served_model
from .compute.loaded_model import LoadedModel
from .compute.precision import check_precision
from .engine.engines import Engines
from .engine.measure_again import measure_again
from .errors import Interrupted, ServeError
from .fronts.front import Front, own_front
from .fronts.ingest_front import ingest_front
from .gpu.memory import keep_to_share
from .model_set import ModelSet, frame_bytes
from .options import WorkerOptions
from .stats import WorkerStats, gpu_states

if TYPE_CHECKING:
    from .frames.tracing import FrameTraces

log = logging.getLogger("splitpoint.cloud")

# gRPC's limit is set before it listens: room for the models that a watched folder may bring.
WATCHED_FRAME_BYTES = 256 << 20
HEALTH_S = 0.25  # how often it is looked at whether the engine can compute


@dataclass(frozen=True, slots=True)
class Session:
    """What can be asked of a worker that listens; an address that is not wanted is ""."""

    address: str
    metrics_address: str
    http_address: str
    backend: Backend


@asynccontextmanager
async def serving(
    folders: Sequence[Path],
    options: WorkerOptions,
    progress: Progress,
    traces: FrameTraces | None = None,
) -> AsyncIterator[Session]:
    """Listens, loads and serves; leaving it answers what was taken, and closes everything.

    Raises what `Worker` raises on entering.
    """
    security = options.security or Security()
    security.check_listen(options.listen)
    if options.announce:
        await asyncio.to_thread(check_announced, options.announce, options.listen)
    proofs = security.read()
    credentials, access = proofs.server_credentials(), proofs.access()
    devices = pick_devices(options.device)
    check_precision(options.precision, devices[0])
    check_tuning(options.tune_minutes, devices[0])
    keep_to_share(devices, options.gpu_memory_fraction)
    profiles = {(found := load_profile(path)).digest: found for path in options.profiles}
    bundles = [
        await asyncio.to_thread(open_bundle, folder, verify_files=False) for folder in folders
    ]
    most_bytes = _most_frame_bytes(bundles, options)
    backend = assemble(options, devices, access, traces)
    async with AsyncExitStack() as closing:
        closing.callback(backend.decoders.shutdown)
        if traces is not None:
            closing.push_async_callback(asyncio.to_thread, traces.close)
        try:
            front, address = await closing.enter_async_context(
                ingest_front(options, proofs, backend, most_bytes)
                if options.ingest
                else own_front(options, backend, credentials, most_bytes)
            )
        except BaseException:
            await backend.engine.stop()  # its threads are there already
            raise
        backend.engine.start()
        closing.push_async_callback(backend.engine.stop)
        gpus = gpu_states(devices)
        metrics_address = _metrics(options, backend, front, gpus, closing)
        http_address = await _http(options, backend, front, gpus, closing)
        loading = _Loading(options, devices, profiles, progress, backend.engine)
        closing.callback(loading.stop)
        tasks = _Tasks()
        closing.push_async_callback(tasks.end)
        tell_health = _HealthTeller(backend, front, progress)
        models = ModelSet(
            backend, front, loading.load, max_frame_bytes=most_bytes, changed=tell_health.changed
        )
        await _load_all(bundles, profiles, models, options, tasks)
        loading.beside_frames()
        tasks.start(measure_again(backend.models, backend.engine), "measure-again")
        front.open()
        tell_health.tell()
        tasks.start(tell_health.follow(), "health")
        closing.push_async_callback(front.drain, options.grace_s)
        if options.announce:
            announcer = announcer_of(options, address, backend.models, progress)
            await closing.enter_async_context(announcer.announced())
        closing.callback(front.stop_health)  # before that: others should be asked from now on
        yield Session(address, metrics_address, http_address, backend)


def _most_frame_bytes(bundles: Sequence[Bundle], options: WorkerOptions) -> int:
    sizes = [frame_bytes(bundle) for bundle in bundles]
    if options.watch is not None:
        sizes.append(WATCHED_FRAME_BYTES)
    if not sizes:
        raise ServeError("there is nothing to serve", "name a bundle, or a folder to --watch")
    return max(sizes)


def _metrics(
    options: WorkerOptions,
    backend: Backend,
    front: Front,
    gpus: Sequence[GpuState],
    closing: AsyncExitStack,
) -> str:
    if not options.metrics:
        return ""
    from .metrics import WorkerCollector  # prometheus-client
    from .metrics_server import MetricsServer

    services = backend.service.services
    collector = WorkerCollector(
        services.figures, backend.models, backend.engine, services.quarantine, gpus, front.count
    )
    server = MetricsServer(options.metrics, collector)
    closing.push_async_callback(asyncio.to_thread, server.close)
    return server.address


async def _http(
    options: WorkerOptions,
    backend: Backend,
    front: Front,
    gpus: Sequence[GpuState],
    closing: AsyncExitStack,
) -> str:
    if not options.http:
        return ""
    from .stats_server import answering  # aiohttp

    stats = WorkerStats(backend, front, gpus)
    return await closing.enter_async_context(answering(options.http, stats, options.http_files))


async def _load_all(
    bundles: Sequence[Bundle],
    profiles: Mapping[str, Profile],
    models: ModelSet,
    options: WorkerOptions,
    tasks: _Tasks,
) -> None:
    for bundle in bundles:
        await models.add(bundle.folder, keep=True)
    if options.watch is not None:
        watch = BundleWatch(
            options.watch, models.add, lambda digest: models.remove(digest, options.grace_s)
        )
        await watch.look(first=True)
        tasks.start(watch.run(), "watch-bundles")
    for digest in profiles.keys() - models.digests:
        raise ServeError(
            f"a profile is of the bundle {digest[:12]}, which is not served",
            "give profiles of the bundles that are",
        )


class _Loading:
    """Loads models on compute threads, until the worker stops."""

    def __init__(
        self,
        options: WorkerOptions,
        devices: Sequence[torch.device],
        profiles: Mapping[str, Profile],
        progress: Progress,
        engine: Engines,
    ) -> None:
        self._options, self._devices = options, devices
        self._profiles, self._progress, self._engine = profiles, progress, engine
        self._stopping = threading.Event()

    def load(self, folder: Path, number: int) -> LoadedModel:
        """The bundle's model on the device of that number."""

        def progress(line: str) -> None:
            self._engine.came_further(number, line)
            self._progress(line)

        def check() -> None:
            self._check()
            self._engine.came_further(number)

        return load_served_model(
            folder,
            self._devices[number],
            self._options,
            profiles=self._profiles,
            progress=progress,
            check=check,
        )

    def beside_frames(self) -> None:
        """From now on no compiler is tried: frames of other models would wait for minutes."""
        self._options = replace(self._options, tune_minutes=0.0)
        self._engine.compile_no_more()

    def stop(self) -> None:
        """What is being loaded ends at its next step."""
        self._stopping.set()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("the worker is stopping")


class _Tasks:
    """What goes on beside the calls, until the worker stops."""

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Begins one that ends with the worker."""
        self._running.append(start_task(work, name, log))

    async def end(self) -> None:
        """Cancels them and waits for that."""
        await cancel_and_wait(*self._running)


class _HealthTeller:
    """Without any model, or where nothing can be computed, clients should ask others."""

    def __init__(self, backend: Backend, front: Front, progress: Progress) -> None:
        self._backend, self._front, self._progress = backend, front, progress

    def tell(self) -> None:
        """Says how it is now."""
        self._front.tell_health(serving=self._backend.is_serving)

    async def changed(self, what: str) -> None:
        """A model came or went."""
        if self._backend.service.open:
            self._progress(what)
            self.tell()

    async def follow(self) -> None:
        """Kernels may hang or fail for good, and recover."""
        could = True
        while True:
            await asyncio.sleep(HEALTH_S)
            if could != (could := self._backend.engine.can_compute):
                self._progress(f"computing works {'again' if could else 'no longer'}")
                self.tell()
