"""The edge agent: the device's half of every frame."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from splitpoint.codec import CodecSet, SpecError, SplitpointError
from splitpoint.partition.bundle import Manifest
from splitpoint.partition.codec_tables import codecs_of
from splitpoint.partition.link import Link
from splitpoint.partition.plan import Plan, named_plan
from splitpoint.partition.planner import Report
from splitpoint.partition.runtimes import ONNX, check_runtime
from splitpoint.partition.slowdown import Slowdown
from splitpoint.proto.frames import FrameError, build_frame, decode_reply
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, max_frame_bytes
from splitpoint.proto.status import FrameExpiredError, KeyFrameNeededError, UnreachableError

from .auto_plan import AutoPlan, device_profiles, plan_now, runtimes_to_measure
from .breaker import Breaker
from .cache import default_cache
from .channel import WorkerChannel
from .connection import Connection
from .edge_half import EdgeHalf, EdgePart
from .errors import AgentError
from .given import Given, Inputs, batch_of, each
from .link_probe import probe_link
from .local_finish import LocalFinish
from .prepare import Prepared, prepare
from .result import Outcome, Result, Stages
from .runtime import Runners

DEFAULT_BUDGET_MS = 10_000.0
# The way to the compute thread and back takes longer than this: shorter work is done in place.
INLINE_MS = 0.3


class EdgeAgent:
    """Splits a model between this device and a worker.

        async with EdgeAgent("server:7070", split="3") as agent:
            result = await agent.infer({"pixels": pixels})

    `server` is HOST:PORT, or None to run all on the device from a local `bundle`. The model is the
    worker's only one, the one called `model`, or that of `bundle`. The split `auto` measures this
    device and the link and takes the best plan, as `auto` says; otherwise `split` and `codec` name
    one. A frame whose payload would exceed `max_frame_bytes` goes in the next coarser codec of the
    plan's kind that was calibrated, and its result names that. `runtime` is what runs the segments
    on this device, one of `RUNTIMES`; auto leaves the choice to the plan, and is onnxruntime where
    `split` names one. `providers` are what onnxruntime computes with. `slowdown` stretches edge
    compute to play a slower device, and is to be reported as emulated. What the cloud refuses,
    loses or does not answer in time, the device finishes from the tensors that it still holds, in
    float32, once all segments are here, unless `finish_locally` says otherwise. Raises
    `AgentError`, `PlanError`, or what the wire and the cache raise, on entering; afterwards every
    frame has a `Result`.
    """

    def __init__(
        self,
        server: str | None,
        *,
        bundle: Path | None = None,
        model: str = "",
        split: str = "auto",
        codec: str = "auto",
        auto: AutoPlan | None = None,
        cache: Path | None = None,
        runtime: str = "auto",
        providers: Sequence[str] = (),
        threads: int = 0,
        slowdown: float = 1.0,
        budget_ms: float = DEFAULT_BUDGET_MS,
        max_frame_bytes: float = math.inf,
        finish_locally: bool = True,
    ) -> None:
        if slowdown < 1:
            raise AgentError(f"a slowdown of {slowdown} is below 1")
        if not 1 <= budget_ms < 2**32:
            raise AgentError(f"a budget of {budget_ms:g} ms", "give 1 ms to 49 days")
        if server is None and bundle is None:
            raise AgentError("neither a server nor a bundle", "give --server or --bundle")
        self._server, self._bundle_path, self._model = server, bundle, model
        self._split, self._codec, self._auto = split, codec, auto or AutoPlan()
        self._cache, self._threads = cache or default_cache(), threads
        self._budget_ms, self._max_frame_bytes = budget_ms, max_frame_bytes
        self._finish_locally = finish_locally
        self._local: LocalFinish | None = None
        self._breaker: Breaker | None = None  # where the device can finish frames itself
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="splitpoint-edge")
        self._frames = 0
        self._edge_ms = math.inf  # what the latest frame took on this device
        self._slower = Slowdown(slowdown)
        self._runtime, self._providers = runtime, tuple(providers)
        self._runners = Runners(self._slower, threads=threads, providers=self._providers)
        self._files: WorkerChannel | None = None
        self._connection: Connection | None = None
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._prepared: Prepared
        self._codecs: CodecSet
        self._half: EdgeHalf
        self.manifest: Manifest
        self.digest: str
        self.labels: list[str] = []
        self.plan: Plan
        self.link: Link | None = None  # as it was planned for
        self.report: Report | None = None  # how the plan was found

    async def __aenter__(self) -> EdgeAgent:
        """Connects, plans, fetches the segments that the plan needs, and loads them."""
        try:
            if self._server is not None:
                self._files = WorkerChannel(self._server)
            self._prepared = await prepare(
                self._files, bundle=self._bundle_path, model=self._model, cache=self._cache
            )
            self.manifest, self.digest = self._prepared.manifest, self._prepared.digest
            self.labels = self._prepared.labels
            self._codecs = codecs_of(self.manifest, self._prepared.folder)
            self._half = EdgeHalf(
                self.manifest, self._codecs, self._runners, self._slower, self._max_frame_bytes
            )
            if self._server is not None:
                specs = [boundary.tensors for boundary in self.manifest.boundaries]
                limit = max_frame_bytes(specs, MAX_BATCH_PER_FRAME)
                self._connection = Connection(
                    WorkerChannel(self._server, limit),
                    self.manifest.name,
                    self.digest,
                    self._stream_opened,
                )
            if self._runtime != "auto":
                check_runtime(self.manifest, self._runtime)
            if self._split == "auto":
                await self.switch(await self._best_plan())
            else:
                for boundary in self.manifest.boundaries:
                    if self._split == str(boundary.id):
                        await self._prepared.tables(boundary.id)
                plan = self._named_plan(self._split, self._codec)
                await self.switch(plan)
            if self._connection is not None and self._finish_locally:
                self._local = LocalFinish(self._prepared, self._runners[ONNX], self._pool)
                self._local.start()
                self._breaker = Breaker(self._connection)
        except BaseException:
            await self._close()
            raise
        return self

    async def switch(self, plan: Plan) -> None:
        """Goes on with another plan, once its segments are here and loaded.

        Frames that are under way end as they began. Raises `AgentError` for a plan that needs a
        worker where there is none.
        """
        if plan.boundary < len(self.manifest.segments):
            if self._connection is None:
                raise AgentError(
                    f"the split at boundary {plan.boundary} needs a worker",
                    "give --server HOST:PORT, or --split local",
                )
            await self._connection.live()
        segments = await self._prepared.segments(plan.boundary, plan.runtime)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._runners[plan.runtime].load, segments)
        if not self._is_local(plan):
            await self._prepared.tables(plan.boundary)
            await loop.run_in_executor(self._pool, self._half.prepare, plan)
        self.plan = plan

    def _named_plan(self, split: str, codec: str = "auto") -> Plan:
        plan = named_plan(self.manifest, self._codecs, split, codec)
        return plan if self._runtime == "auto" else replace(plan, runtime=self._runtime)

    async def _best_plan(self) -> Plan:
        """The plan for this device, its link and the worker's load, all of them measured."""
        if self._connection is None:
            return self._named_plan("local")
        prepared, auto = self._prepared, self._auto
        if prepared.info is None or prepared.load is None:
            raise AgentError(
                f"{self._server} does not serve the bundle {self._bundle_path}",
                "serve the same bundle, or leave out --bundle",
            )
        link = auto.link or await probe_link(await self._connection.live(), str(self._server))
        runtimes = runtimes_to_measure(self.manifest, self._runtime)
        for runtime in runtimes:
            await prepared.segments(len(self.manifest.segments), runtime)
        for boundary in self.manifest.boundaries:
            await prepared.tables(boundary.id)
        profiles = await asyncio.get_running_loop().run_in_executor(
            self._pool,
            lambda: device_profiles(
                prepared.bundle(),
                auto,
                runtimes,
                providers=self._providers,
                folder=self._cache,
                threads=self._threads,
                slowdown=self._slower.factor,
            ),
        )
        self.report = plan_now(
            prepared.bundle(), auto, profiles, prepared.info, prepared.load, link, self._codec
        )
        self.link = link
        return self.report.chosen

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the stream and the connection, in that order."""
        await self._close()

    @property
    def is_local(self) -> bool:
        """Whether the plan runs everything on the device."""
        return self._is_local(self.plan)

    @property
    def can_finish(self) -> bool:
        """Whether all segments are here, so that the device can finish what the cloud does not."""
        return self._local is not None and self._local.ready

    def _is_local(self, plan: Plan) -> bool:
        return plan.boundary == len(self.manifest.segments)

    async def infer(self, inputs: Inputs, *, metadata: Any = None) -> Result:
        """Runs one frame to its outcome. Raises `SpecError` only for inputs that do not fit."""
        batch = batch_of(inputs, self.manifest.boundaries[0].tensors)
        self._frames += 1
        result = await self._infer(self._frames, inputs, batch, metadata)
        self.outcomes[result.outcome] += 1
        return result

    async def stream(
        self, frames: AsyncIterable[Given] | Iterable[Given], in_flight: int = 0
    ) -> AsyncIterator[Result]:
        """Results in the order of `frames`, one each. Edge compute, link and cloud overlap.

        At most `in_flight` frames are under way, 0 for as many as keep all stages busy. A
        frame that has no inputs, or inputs that do not fit, becomes a failed result.
        """
        stream = None if self._connection is None else self._connection.stream
        credits = 1 if stream is None else stream.welcome.credits
        window = in_flight or credits + 1  # one is computed while the others are on their way
        running: deque[asyncio.Task[Result]] = deque()
        try:
            async for given in each(frames):
                running.append(asyncio.create_task(self._take(given)))
                while running and (len(running) >= window or running[0].done()):
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _take(self, given: Given) -> Result:
        error = given.error
        if error is None:
            try:
                return await self.infer(given.inputs, metadata=given.metadata)
            except SpecError as misfit:
                error = misfit
        self._frames += 1
        self.outcomes[Outcome.FAILED] += 1
        return self._failed(self._frames, error, given.metadata)

    async def _infer(self, frame: int, inputs: Inputs, batch: int, metadata: Any) -> Result:
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        plan = self.plan
        try:
            if self._edge_ms < INLINE_MS and not self._half.streams:
                part = self._half.run(plan, inputs)
            else:
                part = await loop.run_in_executor(self._pool, self._half.run, plan, inputs)
            self._edge_ms = part.edge_ms + part.encode_ms
        except SplitpointError as error:
            return self._failed(frame, error, metadata, start)
        if self._is_local(plan):
            total_ms = 1e3 * (time.perf_counter() - start)
            return Result(
                id=frame,
                outcome=Outcome.LOCAL,
                boundary=plan.boundary,
                codec=plan.codec,
                outputs={name: part.values[t] for name, t in self.manifest.outputs.items()},
                stages_ms=Stages(edge=part.edge_ms),
                total_ms=total_ms,
                why=plan.why,
                metadata=metadata,
            )

        if self._breaker is not None and self.can_finish and not self._breaker.allows():
            away = UnreachableError("the worker has not answered lately")
            return await self._finish_here(frame, plan, part, away, metadata, start)

        def build(frame_id: int, budget_ms: int) -> bytes:
            return build_frame(
                id=frame_id,
                boundary=plan.boundary,
                codec=part.codec,
                tensors=part.tensors,
                budget_ms=budget_ms,
            )

        try:
            deadline = start + (self._budget_ms - self._reserve_ms(plan)) / 1e3
            assert self._connection is not None  # plans that need one are refused without
            stream = await self._connection.live(max(deadline - time.perf_counter(), 0))
            budget_ms = 1e3 * (deadline - time.perf_counter())
            waited = time.perf_counter()
            try:
                reply, answer_ms, bytes_up = await stream.ask(build, budget_ms)
            except KeyFrameNeededError:
                part = await loop.run_in_executor(self._pool, self._half.as_key_frame, plan, part)
                budget_ms = 1e3 * (deadline - time.perf_counter())
                reply, answer_ms, bytes_up = await stream.ask(build, budget_ms)
            queued_here_ms = 1e3 * (time.perf_counter() - waited) - answer_ms
            outputs = decode_reply(reply, self.manifest.boundaries[-1].tensors, batch)
            self._note(None)
        except (SplitpointError, FrameError) as error:
            self._note(error)
            return await self._finish_here(frame, plan, part, error, metadata, start)
        server_ms, queue_ms = reply.times.total_us / 1e3, reply.times.queue_us / 1e3
        link_ms = max(answer_ms - server_ms, 0.0)
        downlink_ms = min(stream.round_trip_ms / 2, link_ms / 2)
        return Result(
            id=frame,
            outcome=Outcome.ANSWERED,
            boundary=plan.boundary,
            codec=part.codec,
            outputs={name: outputs[tensor] for name, tensor in self.manifest.outputs.items()},
            stages_ms=Stages(
                edge=part.edge_ms,
                encode=part.encode_ms,
                # Waiting for a credit is waiting for the link: frames before this one hold it.
                uplink=link_ms - downlink_ms + max(queued_here_ms, 0.0),
                queue=queue_ms,
                cloud=server_ms - queue_ms,
                downlink=downlink_ms,
            ),
            total_ms=1e3 * (time.perf_counter() - start),
            bytes_up=bytes_up,
            cloud_compute_ms=reply.times.compute_us / 1e3,
            cloud_batch=reply.times.batch,
            why=plan.why,
            metadata=metadata,
        )

    def _reserve_ms(self, plan: Plan) -> float:
        """Of the budget, what finishing on the device is kept for."""
        if self._local is None or not self._local.ready:
            return 0.0
        return min(self._local.reserve_ms(plan.boundary), self._budget_ms / 2)

    def _note(self, error: Exception | None) -> None:
        """Tells the breaker how the worker took a frame."""
        if self._breaker is None:
            return
        if isinstance(error, (UnreachableError, FrameExpiredError)):
            self._breaker.failed()
        else:
            self._breaker.answered()

    async def _finish_here(
        self,
        frame: int,
        plan: Plan,
        part: EdgePart,
        error: SplitpointError | FrameError,
        metadata: Any,
        start: float,
    ) -> Result:
        """What becomes of a frame that the cloud did not answer, and why."""
        lost = Outcome.EXPIRED if isinstance(error, FrameExpiredError) else Outcome.FAILED
        if self._local is None or not self._local.ready:
            return self._failed(frame, error, metadata, start, lost)
        waited_ms = 1e3 * (time.perf_counter() - start) - part.edge_ms - part.encode_ms
        try:
            values, here_ms = await self._local.run(part.values, plan.boundary)
        except SplitpointError as second:
            return self._failed(frame, second, metadata, start)
        return Result(
            id=frame,
            outcome=Outcome.LOCAL,
            boundary=plan.boundary,
            codec=part.codec,
            outputs={name: values[tensor] for name, tensor in self.manifest.outputs.items()},
            stages_ms=Stages(
                edge=part.edge_ms + here_ms, encode=part.encode_ms, uplink=max(waited_ms, 0.0)
            ),
            total_ms=1e3 * (time.perf_counter() - start),
            why=f"finished on the device: {error}",
            metadata=metadata,
        )

    def _failed(
        self,
        frame: int,
        error: SplitpointError,
        metadata: Any,
        start: float | None = None,
        outcome: Outcome = Outcome.FAILED,
    ) -> Result:
        return Result(
            id=frame,
            outcome=outcome,
            boundary=self.plan.boundary,
            codec=self.plan.codec,
            total_ms=0.0 if start is None else 1e3 * (time.perf_counter() - start),
            why=str(error),
            error=error,
            metadata=metadata,
        )

    def _stream_opened(self) -> None:
        """Called for every new stream."""
        self._half.new_stream()
        if self._local is not None:
            self._local.start()

    async def _close(self) -> None:
        for helper in (self._breaker, self._local):
            if helper is not None:
                await helper.close()
        for connection in (self._connection, self._files):
            if connection is not None:
                await connection.close()
        await asyncio.to_thread(self._pool.shutdown)
