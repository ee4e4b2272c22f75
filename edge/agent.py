"""The edge agent: the device's half of every frame."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from splitpoint.codec import Array, CodecError, CodecSet, SpecError, SplitpointError
from splitpoint.codec.video import FktVideo, VideoStream
from splitpoint.partition.bundle import Manifest
from splitpoint.partition.codec_tables import codecs_of
from splitpoint.partition.link import Link
from splitpoint.partition.plan import Plan, coarser, named_plan
from splitpoint.partition.planner import Report
from splitpoint.partition.slowdown import Slowdown
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, build_frame, decode_reply, encode_tensors
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, max_frame_bytes
from splitpoint.proto.status import FrameExpiredError, KeyFrameNeededError

from .auto_plan import AutoPlan, device_profile, plan_now
from .cache import default_cache
from .channel import WorkerChannel
from .errors import AgentError
from .frame_stream import FrameStream
from .given import Given, Inputs, batch_of, each
from .link_probe import probe_link
from .prepare import Prepared, prepare
from .result import Outcome, Result, Stages
from .runtime import SegmentRunner

DEFAULT_BUDGET_MS = 10_000.0
# The way to the compute thread and back takes longer than this: shorter work is done in place.
INLINE_MS = 0.3


@dataclass(frozen=True, slots=True)
class _EdgePart:
    values: dict[str, Array]
    tensors: list[pb.Tensor]
    codec: str  # the plan's, or one of fewer bytes
    edge_ms: float
    encode_ms: float


class EdgeAgent:
    """Splits a model between this device and a worker.

        async with EdgeAgent("server:7070", split="3") as agent:
            result = await agent.infer({"pixels": pixels})

    `server` is HOST:PORT, or None to run all on the device from a local `bundle`. The model is the
    worker's only one, the one called `model`, or that of `bundle`. The split `auto` measures this
    device and the link and takes the best plan, as `auto` says; otherwise `split` and `codec` name
    one. A frame whose payload would exceed `max_frame_bytes` goes in the next coarser codec of the
    plan's kind that was calibrated, and its result names that. `slowdown` stretches edge compute to
    play a slower device, and is to be reported as emulated. Raises `AgentError`, `PlanError`, or
    what the wire and the cache raise, on entering; afterwards every frame has a `Result`.
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
        threads: int = 0,
        slowdown: float = 1.0,
        budget_ms: float = DEFAULT_BUDGET_MS,
        max_frame_bytes: float = math.inf,
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
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="splitpoint-edge")
        self._frames = 0
        self._edge_ms = math.inf  # what the latest frame took on this device
        self._slower = Slowdown(slowdown)
        self._runner = SegmentRunner(self._slower, threads=threads)
        self._files: WorkerChannel | None = None
        self._channel: WorkerChannel | None = None
        self._stream: FrameStream | None = None
        self._opening: asyncio.Task[FrameStream] | None = None
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._prepared: Prepared
        self._codecs: CodecSet
        self._video: VideoStream | None = None  # while the plan's codec is one for streams
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
            if self._server is not None:
                specs = [boundary.tensors for boundary in self.manifest.boundaries]
                limit = max_frame_bytes(specs, MAX_BATCH_PER_FRAME)
                self._channel = WorkerChannel(self._server, limit)
            if self._split == "auto":
                await self.switch(await self._best_plan())
            else:
                for boundary in self.manifest.boundaries:
                    if self._split == str(boundary.id):
                        await self._prepared.tables(boundary.id)
                plan = named_plan(self.manifest, self._codecs, self._split, self._codec)
                await self.switch(plan)
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
            if self._channel is None:
                raise AgentError(
                    f"the split at boundary {plan.boundary} needs a worker",
                    "give --server HOST:PORT, or --split local",
                )
            await self._live_stream()
        paths = await self._prepared.segments(plan.boundary)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._runner.load, paths)
        if not self._is_local(plan):
            await self._prepared.tables(plan.boundary)
            for name in coarser(self.manifest.boundaries[plan.boundary], plan.codec):
                await loop.run_in_executor(self._pool, self._codecs.named, name, plan.boundary)
            codec = self._codecs.named(plan.codec, plan.boundary)
            self._video = codec.new_stream() if isinstance(codec, FktVideo) else None
        self.plan = plan

    async def _best_plan(self) -> Plan:
        """The plan for this device, its link and the worker's load, all of them measured."""
        if self._channel is None:
            return named_plan(self.manifest, self._codecs, "local")
        prepared, auto = self._prepared, self._auto
        if prepared.info is None or prepared.load is None:
            raise AgentError(
                f"{self._server} does not serve the bundle {self._bundle_path}",
                "serve the same bundle, or leave out --bundle",
            )
        link = auto.link or await probe_link(await self._live_stream(), str(self._server))
        await prepared.segments(len(self.manifest.segments))
        for boundary in self.manifest.boundaries:
            await prepared.tables(boundary.id)
        profile = await asyncio.get_running_loop().run_in_executor(
            self._pool,
            lambda: device_profile(
                prepared.bundle(),
                auto,
                folder=self._cache,
                threads=self._threads,
                slowdown=self._slower.factor,
            ),
        )
        self.report = plan_now(
            prepared.bundle(), auto, profile, prepared.info, prepared.load, link, self._codec
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
        credits = 1 if self._stream is None else self._stream.welcome.credits
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
            if self._edge_ms < INLINE_MS and self._video is None:
                part = self._edge_part(plan, inputs)
            else:
                part = await loop.run_in_executor(self._pool, self._edge_part, plan, inputs)
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

        def build(frame_id: int, budget_ms: int) -> bytes:
            return build_frame(
                id=frame_id,
                boundary=plan.boundary,
                codec=part.codec,
                tensors=part.tensors,
                budget_ms=budget_ms,
            )

        try:
            deadline = start + self._budget_ms / 1e3
            stream = await self._live_stream(max(deadline - time.perf_counter(), 0))
            budget_ms = 1e3 * (deadline - time.perf_counter())
            waited = time.perf_counter()
            try:
                reply, answer_ms, bytes_up = await stream.ask(build, budget_ms)
            except KeyFrameNeededError:
                part = await loop.run_in_executor(self._pool, self._as_key_frame, plan, part)
                budget_ms = 1e3 * (deadline - time.perf_counter())
                reply, answer_ms, bytes_up = await stream.ask(build, budget_ms)
            queued_here_ms = 1e3 * (time.perf_counter() - waited) - answer_ms
            outputs = decode_reply(reply, self.manifest.boundaries[-1].tensors, batch)
        except FrameExpiredError as error:
            return self._failed(frame, error, metadata, start, Outcome.EXPIRED)
        except (SplitpointError, FrameError) as error:
            return self._failed(frame, error, metadata, start)
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

    def _edge_part(self, plan: Plan, inputs: Inputs) -> _EdgePart:
        """On the compute thread: segments [0, boundary), then the codec."""
        start = time.perf_counter()
        values = self._runner.run(inputs, plan.boundary)
        computed = time.perf_counter()
        if self._is_local(plan):
            return _EdgePart(values, [], plan.codec, 1e3 * (computed - start), 0.0)
        codec, tensors = self._slower.stretch(
            (plan.boundary, plan.codec), self._encode, plan, values
        )
        encoded_ms = 1e3 * (time.perf_counter() - computed)
        return _EdgePart(values, tensors, codec, 1e3 * (computed - start), encoded_ms)

    def _as_key_frame(self, plan: Plan, part: _EdgePart) -> _EdgePart:
        """On the compute thread: the same frame once more, without what the worker lacks."""
        if self._video is not None:
            self._video.reset()
        return replace(part, tensors=self._encode(plan, part.values)[1])

    def _encode(self, plan: Plan, values: dict[str, Array]) -> tuple[str, list[pb.Tensor]]:
        """The boundary's tensors in the plan's codec, or in the first coarser one that fits."""
        boundary = self.manifest.boundaries[plan.boundary]
        names = coarser(boundary, plan.codec)
        for name in names:
            codec = self._video or self._codecs.named(name, boundary.id)
            tensors = encode_tensors(values, boundary.tensors, codec)
            size = sum(len(tensor.payload) for tensor in tensors)
            if size <= self._max_frame_bytes:
                return name, tensors
        raise CodecError(
            f"the frame has {size} bytes even as {names[-1]}, "
            f"at most {self._max_frame_bytes:g} are allowed",
            "raise --max-kb-per-frame, or run on the device with --split local",
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

    async def _live_stream(self, timeout_s: float | None = None) -> FrameStream:
        """The stream to the worker, opened (again) where there is none that works.

        All frames that wait share one attempt, which outlives those whose budget ends first.
        """
        if self._stream is not None and self._stream.broken is None:
            return self._stream
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open_stream(), name="open-stream")
            # Where nobody waits any more, nobody misses the exception either.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(self._opening), timeout_s)
        except asyncio.TimeoutError:
            raise FrameExpiredError("the budget ran out while connecting") from None

    async def _open_stream(self) -> FrameStream:
        if self._stream is not None:
            await self._stream.close()
        assert self._channel is not None
        client = f"{platform.node()}/{os.getpid()}"
        self._stream = await self._channel.open_stream(self.manifest.name, self.digest, client)
        if self._video is not None:
            self._video.reset()
        return self._stream

    async def _close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._stream is not None:
            await self._stream.close()
        for channel in (self._channel, self._files):
            if channel is not None:
                await channel.close()
        await asyncio.to_thread(self._pool.shutdown)
