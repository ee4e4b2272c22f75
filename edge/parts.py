"""The parts of an agent at work, made in the order in which they need each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from splitpoint.partition.bundle.codec_tables import codecs_of
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.run.slowdown import Slowdown
from splitpoint.proto.status import UnreachableError

from .dispatch.first_plan import Device
from .dispatch.planning import Planning
from .frames.edge_half import EdgeHalf
from .frames.intake import Intake
from .frames.local_finish import LocalFinish, fits
from .frames.path import FramePath, Threads
from .frames.present_plan import PresentPlan
from .frames.runtime import Runners
from .joining import Joining
from .link.channel import WorkerChannel
from .link.frame_stream import FrameStream
from .link.workers import Workers, links_of
from .options import Options
from .result import Outcome
from .store.cache_size import shrink
from .store.prepare import Prepared, prepare

log = logging.getLogger("splitpoint.edge")


class Parts:
    """What one agent consists of, once it has begun; `closing` ends that, the latest first.

    `workers` is None where there is no server, `finish` where the device does not finish the frames
    that the cloud does not answer. `switched` is told of each change of the plan.
    """

    prepared: Prepared
    present: PresentPlan
    path: FramePath
    intake: Intake

    def __init__(
        self, options: Options, closing: AsyncExitStack, switched: Callable[[str], None]
    ) -> None:
        self._options, self._closing, self._switched = options, closing, switched
        self._threads = Threads(
            ThreadPoolExecutor(1, thread_name_prefix="splitpoint-edge"),
            ThreadPoolExecutor(1, thread_name_prefix="splitpoint-encode"),
        )
        self._slower = Slowdown(options.slowdown)
        self._runners = Runners(self._slower, threads=options.threads, providers=options.providers)
        self._files: list[WorkerChannel] = []
        self._half: EdgeHalf
        self._joining: Joining | None = None
        self._is_alone = False  # with a named split, until a worker is there
        self.workers: Workers | None = None
        self.finish: LocalFinish | None = None

    async def begin(self, outcomes: dict[Outcome, int]) -> None:
        """Connects, plans, fetches the segments that the plan needs, and loads them."""
        for thread in (self._threads.encode, self._threads.compute):
            self._closing.push_async_callback(asyncio.to_thread, thread.shutdown)
        prepared = self.prepared = await self._prepare()
        codecs = codecs_of(prepared.manifest, prepared.folder)
        self._half = EdgeHalf(
            prepared.manifest, codecs, self._runners, self._slower, self._options.max_frame_bytes
        )
        self.workers = self._connected(prepared)
        planning = Planning(
            prepared=prepared,
            codecs=codecs,
            device=self._device(),
            auto=self._options.auto,
            split=self._options.split,
            codec=self._options.codec,
            adapt=self._options.adapt,
            budget_ms=self._options.budget_ms,
        )
        planning.check()
        self.present = PresentPlan(
            planning, self._half, self._runners, self._threads.encode, self.workers, self._switched
        )
        self._closing.push_async_callback(self.present.close)
        await self.present.begin()
        if self.workers is not None:
            self.workers.start()
            self.finish = self._finishing(prepared)
        self.path = FramePath(
            prepared.manifest,
            self._half,
            self._threads,
            workers=self.workers,
            local=self.finish,
            present=self.present,
            hedge=self._options.hedge,
        )
        self.intake = Intake(
            prepared.manifest,
            self.path,
            self.present,
            local=self.finish,
            budget_ms=self._options.budget_ms,
            outcomes=outcomes,
        )
        if prepared.away is not None:
            await self._begin_alone(prepared.away)

    async def _prepare(self) -> Prepared:
        options = self._options
        for server in options.servers:
            self._files.append(WorkerChannel(server, credentials=options.credentials))
            self._closing.push_async_callback(self._files[-1].close)
        prepared = await prepare(
            self._files, bundle=options.bundle, model=options.model, cache=options.cache
        )
        if prepared.use is not None:
            self._closing.callback(prepared.use.close)
        if prepared.cache is not None:
            await asyncio.to_thread(shrink, options.cache, 1e6 * options.max_cache_mb)
        return prepared

    def _connected(self, prepared: Prepared) -> Workers | None:
        options, said = self._options, prepared.serving
        if not options.servers:
            return None
        # The nearest and idlest is asked first: it is the one that described the bundle.
        links = links_of(
            options.servers,
            "" if said is None else said.server,
            prepared.manifest,
            prepared.digest,
            options.credentials,
            self._opened,
        )
        workers = Workers(links)
        self._closing.push_async_callback(workers.close)
        return workers

    def _device(self) -> Device:
        options = self._options
        return Device(
            compute=self._threads.compute,
            folder=options.cache,
            runtime=options.runtime,
            providers=options.providers,
            threads=options.threads,
            slowdown=options.slowdown,
        )

    def _finishing(self, prepared: Prepared) -> LocalFinish | None:
        """What finishes frames here, where that is wanted and possible; it loads from now on."""
        options, adapter = self._options, self.present.adapter
        runner = self._runners[ONNX]
        if not options.finish_locally:
            return None
        if not fits(prepared.manifest, runner.loaded, options.max_edge_mb):
            return None
        finish = LocalFinish(
            prepared,
            runner,
            self._threads.compute,
            None if adapter is None else adapter.finish_ms(),
        )
        self._closing.push_async_callback(finish.close)
        finish.start()
        return finish

    async def _begin_alone(self, away: UnreachableError) -> None:
        """Lets frames begin without a worker, and has the workers looked for."""
        assert self.workers is not None
        if not self.present.is_local:
            if self.finish is not None:
                await self.finish.wait()
            if self.finish is None or not self.finish.ready:
                raise UnreachableError(
                    f"{away.what}, and this device may not or cannot finish frames",
                    f"{away.remedy}; or let the device finish them: --split local, "
                    "--finish-locally",
                )
        name = self.prepared.manifest.name
        log.warning("%s; until one does, %s runs on this device alone", away.what, name)
        if self._options.split == "auto":
            self._joining = Joining(lambda: self.present.begin_again(self._files))
            self._closing.push_async_callback(self._joining.close)
        else:
            self._is_alone = not self.present.is_local
        self.workers.look_for_all()

    def _opened(self, stream: FrameStream) -> None:
        """Called with every new stream."""
        stream.on_late = self.present.late
        self._half.new_stream()
        if self.finish is not None:
            self.finish.start()
        if self._joining is not None:
            self._joining.start()
        if self._is_alone:
            self._is_alone = False
            log.warning("a worker is there: frames go to it from now on")
