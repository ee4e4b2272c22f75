"""The edge agent: the device's half of every frame."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from splitpoint.partition.bundle import Manifest
from splitpoint.partition.codec_tables import codecs_of
from splitpoint.partition.kept_files import default_cache
from splitpoint.partition.link import Link
from splitpoint.partition.plan import Plan, name_of
from splitpoint.partition.planner import Report
from splitpoint.partition.runtimes import ONNX
from splitpoint.partition.slowdown import Slowdown
from splitpoint.proto.limits import MAX_CREDITS
from splitpoint.proto.status import UnreachableError

from .adapt import Adapter
from .auto_plan import AutoPlan
from .cache_size import CacheUse, shrink
from .channel import WorkerChannel
from .credentials import Credentials
from .edge_half import EdgeHalf
from .errors import AgentError
from .first_plan import Device
from .frame_path import FramePath, Threads
from .frame_stream import FrameStream
from .given import Given, Inputs
from .intake import Intake
from .joining import Joining
from .local_finish import LocalFinish, fits
from .planning import Planning
from .prepare import Prepared, described_now, prepare
from .result import Outcome, Result
from .runtime import Runners
from .window import Newest, in_order
from .workers import Workers, links_of, parse_servers

log = logging.getLogger("splitpoint.edge")

DEFAULT_BUDGET_MS, DEFAULT_CACHE_MB = 10_000.0, 4_000.0


class EdgeAgent:
    """Splits a model between this device and a worker.

        async with EdgeAgent("server:7070", split="3") as agent:
            result = await agent.infer({"pixels": pixels})

    `server` is HOST:PORT, several of them with commas or as a list, or None to run all on the
    device from a local `bundle`. `credentials` are for all of them. The model is the workers' only
    one, the one called `model`, or that of `bundle`. The split `auto` measures this device and the
    link and takes the best plan, as `auto` says; with `adapt` it follows the link, the worker's
    load and the device from then on, and tells `on_switch` of each change in one line. Otherwise
    `split` and `codec` name one. A frame whose payload would exceed `max_frame_bytes` goes in the
    next coarser codec of the plan's kind that was calibrated, and its result names that. `runtime`
    is what runs the segments on this device, one of `RUNTIMES`; auto leaves the choice to the plan,
    and is onnxruntime where `split` names one. `providers` are what onnxruntime computes with.
    `slowdown` stretches edge compute to play a slower device, and is to be reported as emulated.
    What the cloud refuses, loses or does not answer in time, the device finishes from the tensors
    that it still holds, in float32, once all segments are here, unless `finish_locally` says
    otherwise or they need more than `max_edge_mb`; with `hedge` it does not wait for the budget's
    end, but for 95 of 100 answers' time. Of fetched bundles that nobody uses, the oldest go where
    the cache has more than `max_cache_mb`. Raises `AgentError`, `PlanError`, or what the wire and
    the cache raise, on entering; afterwards every frame has a `Result`.
    """

    def __init__(
        self,
        server: str | Sequence[str] | None,
        *,
        bundle: Path | None = None,
        model: str = "",
        split: str = "auto",
        codec: str = "auto",
        auto: AutoPlan | None = None,
        adapt: bool = True,
        cache: Path | None = None,
        max_cache_mb: float = DEFAULT_CACHE_MB,
        runtime: str = "auto",
        providers: Sequence[str] = (),
        threads: int = 0,
        slowdown: float = 1.0,
        budget_ms: float = DEFAULT_BUDGET_MS,
        max_frame_bytes: float = math.inf,
        max_edge_mb: float | None = None,
        finish_locally: bool = True,
        hedge: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        if slowdown < 1:
            raise AgentError(f"a slowdown of {slowdown} is below 1")
        if not 1 <= budget_ms < 2**32:
            raise AgentError(f"a budget of {budget_ms:g} ms", "give 1 ms to 49 days")
        if server is None and bundle is None:
            raise AgentError("neither a server nor a bundle", "give --server or --bundle")
        names = server if server is None or isinstance(server, str) else ",".join(server)
        self._servers = [] if names is None else parse_servers(names)
        self._credentials = credentials
        self._bundle_path, self._model = bundle, model
        self._split, self._codec, self._auto = split, codec, auto or AutoPlan()
        self._adapt, self._hedge = adapt, hedge
        self._cache, self._max_cache_mb = cache or default_cache(), max_cache_mb
        self._cache_use: CacheUse | None = None
        self._budget_ms, self._max_frame_bytes = budget_ms, max_frame_bytes
        self._finish_locally, self._max_edge_mb = finish_locally, max_edge_mb
        self._pools = Threads(
            ThreadPoolExecutor(1, thread_name_prefix="splitpoint-edge"),
            ThreadPoolExecutor(1, thread_name_prefix="splitpoint-encode"),
        )
        self._slower = Slowdown(slowdown)
        self._device = Device(
            compute=self._pools.compute,
            folder=self._cache,
            runtime=runtime,
            providers=tuple(providers),
            threads=threads,
            slowdown=slowdown,
        )
        self._runners = Runners(self._slower, threads=threads, providers=tuple(providers))
        self._files: list[WorkerChannel] = []
        self._workers: Workers | None = None
        self._local: LocalFinish | None = None
        self._adapter: Adapter | None = None
        self._joining: Joining | None = None
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.on_switch: Callable[[str], None] | None = None
        self._prepared: Prepared
        self._planning: Planning
        self._half: EdgeHalf
        self._path: FramePath
        self._intake: Intake
        self.manifest: Manifest
        self.digest: str
        self.labels: list[str] = []
        self.plan: Plan
        self.link: Link | None = None  # as it was planned for at the start
        self.report: Report | None = None  # how the plan was found

    async def __aenter__(self) -> EdgeAgent:
        """Connects, plans, fetches the segments that the plan needs, and loads them."""
        try:
            self._files = [
                WorkerChannel(server, credentials=self._credentials) for server in self._servers
            ]
            self._prepared = await prepare(
                self._files, bundle=self._bundle_path, model=self._model, cache=self._cache
            )
            self._cache_use, away = self._prepared.use, self._prepared.away
            self.manifest, self.digest = self._prepared.manifest, self._prepared.digest
            self.labels = self._prepared.labels
            if self._prepared.cache is not None:
                await asyncio.to_thread(shrink, self._cache, 1e6 * self._max_cache_mb)
            codecs = codecs_of(self.manifest, self._prepared.folder)
            self._half = EdgeHalf(
                self.manifest, codecs, self._runners, self._slower, self._max_frame_bytes
            )
            if self._servers:
                # The nearest and idlest is asked first: it is the one that described the bundle.
                said = self._prepared.serving
                links = links_of(
                    self._servers,
                    "" if said is None else said.server,
                    self.manifest,
                    self.digest,
                    self._credentials,
                    self._opened,
                )
                self._workers = Workers(links)
            self._planning = Planning(
                prepared=self._prepared,
                codecs=codecs,
                device=self._device,
                auto=self._auto,
                split=self._split,
                codec=self._codec,
            )
            self._planning.check()
            if away is None:
                await self.switch(await self._first_plan())
            else:
                await self._take(await self._planning.alone(away))
            if self._workers is not None:
                self._workers.start()
                if self._finish_locally and fits(
                    self.manifest, self._runners[ONNX].loaded, self._max_edge_mb
                ):
                    self._local = LocalFinish(
                        self._prepared,
                        self._runners[ONNX],
                        self._pools.compute,
                        None if self._adapter is None else self._adapter.finish_ms(),
                    )
                    self._local.start()
            self._path = FramePath(
                self.manifest,
                self._half,
                self._pools,
                workers=self._workers,
                local=self._local,
                adapter=self._adapter,
                hedge=self._hedge,
            )
            self._intake = Intake(
                self.manifest,
                self._path,
                lambda: self.plan,
                adapter=self._adapter,
                local=self._local,
                budget_ms=self._budget_ms,
                outcomes=self.outcomes,
            )
            if away is not None:
                await self._begin_alone(away)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the streams and the connections, in that order."""
        await self._close()

    async def switch(self, plan: Plan) -> None:
        """Goes on with another plan, once its segments are here and loaded.

        Frames that are under way end as they began. Raises `AgentError` for a plan that needs a
        worker where there is none.
        """
        if not self._is_local(plan):
            if self._workers is None:
                raise AgentError(
                    f"the split at boundary {plan.boundary} needs a worker",
                    "give --server HOST:PORT, or --split local",
                )
            await self._workers.current.connection.live()
        await self._take(plan)

    async def _take(self, plan: Plan) -> None:
        """The same, whether or not a worker is there."""
        segments = await self._prepared.segments(plan.boundary, plan.runtime)
        loop = asyncio.get_running_loop()
        runner = self._runners[plan.runtime]
        await loop.run_in_executor(self._pools.compute, runner.load, segments)
        if not self._is_local(plan):
            await self._prepared.tables(plan.boundary)
            await loop.run_in_executor(self._pools.encode, self._half.prepare, plan)
        self.plan = plan
        if self._adapter is not None:
            self._adapter.runs(plan)

    async def infer(self, inputs: Inputs, *, metadata: Any = None, traceparent: str = "") -> Result:
        """Runs one frame to its outcome. Raises `SpecError` only for inputs that do not fit."""
        return await self._intake.infer(
            Given(inputs=inputs, metadata=metadata, traceparent=traceparent)
        )

    async def stream(
        self,
        frames: AsyncIterable[Given] | Iterable[Given],
        in_flight: int = 0,
        *,
        live: bool = False,
    ) -> AsyncGenerator[Result, None]:
        """A result for each of `frames`. Edge compute, encoding, link and cloud overlap.

        At most `in_flight` frames are under way, 0 for as many as keep all stages busy. Results
        come in the order of `frames`; from a `live` source, which does not wait, as frames end, the
        newest begins first, and those that could not begin before the next came have expired. A
        frame that has no inputs, or inputs that do not fit, becomes a failed result.
        """
        intake = self._intake
        stream = None if self._workers is None else self._workers.stream
        # A worker that is not there yet will grant the usual.
        credits = MAX_CREDITS if stream is None else stream.credits
        credits = 1 if self._workers is None else credits
        # One is computed and one encoded while the others are on their way.
        window = in_flight or credits + 2
        if not live:
            results = in_order(frames, intake.take, window)
        else:
            intake.begins()
            results = Newest(
                intake.take, intake.expire, intake.arrived, window, busy=intake.finishing
            ).run(frames)
        # A caller that stops early ends, by closing this, all that is under way.
        async with aclosing(results):
            try:
                async for result in results:
                    yield result
            finally:
                if self._adapter is not None:
                    self._adapter.controller.interval_ms = None  # nothing to keep up with now

    @property
    def is_local(self) -> bool:
        """Whether the plan runs everything on the device."""
        return self._is_local(self.plan)

    @property
    def can_finish(self) -> bool:
        """Whether all segments are here, so that the device can finish what the cloud does not."""
        return self._local is not None and self._local.ready

    async def settled(self) -> None:
        """Until the segments for finishing frames on the device are here, or could not be had."""
        if self._local is not None:
            await self._local.wait()

    @property
    def uplink_mbps(self) -> float | None:
        """The uplink's rate that decisions are made for; None where nothing adapts to it."""
        return None if self._adapter is None else self._adapter.uplink_mbps

    def _is_local(self, plan: Plan) -> bool:
        return plan.boundary == len(self.manifest.segments)

    # Starting and ending. -------------------------------------------------------------------

    async def _first_plan(self) -> Plan:
        if self._split != "auto":
            return await self._planning.named()
        if self._workers is None:
            return self._planning.local()
        found = await self._planning.measured(self._workers)
        self.link, self.report = found.link, found.report
        if self._adapt:
            controller = found.controller(self.manifest, self._auto, self._budget_ms)
            self._adapter = Adapter(
                found.table, controller, self._workers, self.switch, self._switched
            )
        return found.report.chosen

    # Without a worker. ----------------------------------------------------------------------

    async def _begin_alone(self, away: UnreachableError) -> None:
        """Lets frames begin, and has the workers looked for."""
        assert self._workers is not None
        if not self.is_local:
            await self.settled()
            if not self.can_finish:
                raise AgentError(
                    f"{away.what}, and this device may not or cannot finish frames",
                    "start the worker, or let the device: --split local, --finish-locally",
                )
        log.warning(
            "%s; until one does, %s runs on this device alone", away.what, self.manifest.name
        )
        if self._split == "auto":
            self._joining = Joining(self._join)
        self._workers.look_for_all()

    async def _join(self) -> None:
        """Plans as at a start, now that a worker is there."""
        if self._workers is None or self._workers.pick(needed=True) is None:
            raise UnreachableError("the worker has not answered yet")
        self._prepared = await described_now(self._prepared, self._files)
        self._planning = replace(self._planning, prepared=self._prepared)
        plan = await self._first_plan()
        await self.switch(plan)
        if self._adapter is not None:
            self._path.follows(self._adapter)
            self._intake.follows(self._adapter)
        name = name_of(plan.boundary, plan.codec)
        self._switched(f"{self._workers.current.server} is there: {name} ({plan.why})")

    def _opened(self, stream: FrameStream) -> None:
        """Called with every new stream."""
        stream.on_late = self._late
        self._half.new_stream()
        if self._local is not None:
            self._local.start()
        if self._joining is not None:
            self._joining.start()

    def _late(self, nbytes: int, waited_ms: float) -> None:
        # The first stream is there before the adapter is: planning needs it.
        if self._adapter is not None:
            self._adapter.late(nbytes, waited_ms)

    def _switched(self, why: str) -> None:
        log.info("%s", why)
        if self.on_switch is not None:
            self.on_switch(why)

    async def _close(self) -> None:
        for helper in (self._joining, self._adapter, self._local, self._workers, *self._files):
            if helper is not None:
                await helper.close()
        if self._cache_use is not None:
            self._cache_use.close()
        for pool in (self._pools.compute, self._pools.encode):
            await asyncio.to_thread(pool.shutdown)
