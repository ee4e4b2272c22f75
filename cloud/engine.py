"""Queues, batches and computes: one engine, one compute thread, all models and streams.

Requests that wait at the same boundary of the same model are computed together, in the order in
which the oldest of each group came. There is no artificial delay: a batch is whatever waited while
the one before it ran. Every job gets exactly one answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from splitpoint.codec import Array, CodecSource
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.costs import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import Boundaries, FrameError

from .torch_runner import TorchRunner

log = logging.getLogger("splitpoint.cloud")
_T = TypeVar("_T")

# The way to the compute thread and back takes longer than this: shorter work is done in place.
INLINE_MS = 0.3
_NEWEST = 0.3  # weight of the latest batch in a mean
_LOAD_MEMORY_S = 1.0  # what happened this long ago counts 1/e in the utilisation


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A bundle that is loaded and timed."""

    bundle: Bundle
    runner: TorchRunner
    times: CloudTimes
    boundaries: Boundaries
    codecs: CodecSource


@dataclass(kw_only=True, eq=False)
class Job:
    """One checked and decoded frame on its way through the engine.

    `answer` is called once, on the event loop, with the outputs or the error. Times are of
    `time.perf_counter`; `deadline` is infinite for a frame without budget.
    """

    model: ServedModel
    boundary: int
    batch: int
    values: Mapping[str, Array]
    deadline: float
    answer: Callable[[Job, dict[str, Array] | FrameError], None]
    cancelled: bool = False
    queued_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    batch_computed: int = 0


class Engine:
    """Runs jobs until it is stopped. Use it from one event loop; `start` before `submit`."""

    def __init__(self, *, max_batch: int, max_queued: int) -> None:
        self._max_batch, self._max_queued = max_batch, max_queued
        self._queues: dict[tuple[int, int], deque[Job]] = {}
        self._queued = 0
        self._wake = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="splitpoint-compute")
        self._task: asyncio.Task[None] | None = None
        self._utilisation = _Utilisation()
        self._recent = _Recent()

    async def on_compute_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """The result of `function`, from the thread that computes every batch.

        A model is loaded and timed there too: each thread that has run torch keeps helpers of its
        own, and with two sets on few cores every batch after a pause takes up to twice as long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def start(self) -> None:
        """Starts the scheduling loop on the running event loop."""
        self._task = asyncio.create_task(self._run(), name="engine")

    async def stop(self) -> None:
        """Ends the loop after the batch that is being computed; what waits gets STOPPING."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for queue in self._queues.values():
            for job in queue:
                _tell(job, FrameError(pb.STOPPING, "the worker is stopping"))
        self._queues.clear()
        self._queued = 0
        await asyncio.to_thread(self._pool.shutdown)

    def submit(self, job: Job) -> None:
        """Queues a job; `FrameError` (OVERLOADED) when the queue is full."""
        if self._queued >= self._max_queued:
            raise FrameError(pb.OVERLOADED, f"{self._queued} frames wait already")
        job.queued_at = time.perf_counter()
        key = (id(job.model), job.boundary)
        self._queues.setdefault(key, deque()).append(job)
        self._queued += 1
        self._wake.set()

    def load(self) -> pb.Load:
        """How busy the engine is now."""
        now = time.perf_counter()
        queue_ms, slowdown = self._recent.at(now)
        return pb.Load(
            queued=self._queued,
            queue_ms=queue_ms,
            utilisation=self._utilisation.at(now),
            slowdown=slowdown,
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            group = self._next_group()
            if not group:
                self._wake.clear()
                await self._wake.wait()
                continue
            started = time.perf_counter()
            if sum(group[0].model.times.segment_ms[group[0].boundary :]) * len(group) < INLINE_MS:
                self._answer(group, _compute(group), started)
                await asyncio.sleep(0)
                continue
            computing = loop.run_in_executor(self._pool, _compute, group)
            try:
                results = await asyncio.shield(computing)
            except asyncio.CancelledError:
                self._answer(group, await computing, started)
                raise
            self._answer(group, results, started)

    def _answer(
        self, group: list[Job], results: list[dict[str, Array] | FrameError], started: float
    ) -> None:
        finished = time.perf_counter()
        self._utilisation.add(started, finished)
        announced_ms = sum(group[0].model.times.segment_ms[group[0].boundary :])
        self._recent.add(
            finished,
            queue_ms=1e3 * (started - group[0].queued_at),
            slowdown=1e3 * (finished - started) / announced_ms if announced_ms > 0 else 1.0,
        )
        samples = sum(job.batch for job in group)
        for job, result in zip(group, results, strict=True):
            job.started_at, job.finished_at, job.batch_computed = started, finished, samples
            _tell(job, result)

    def _next_group(self) -> list[Job]:
        """The jobs to compute next: the group whose head waits longest, up to the batch limit."""
        while self._queued:
            key = min(
                (key for key, queue in self._queues.items() if queue),
                key=lambda key: self._queues[key][0].queued_at,
            )
            queue, samples = self._queues[key], 0
            group: list[Job] = []
            now = time.perf_counter()
            while queue and (not group or samples + queue[0].batch <= self._max_batch):
                job = queue.popleft()
                self._queued -= 1
                if job.cancelled:
                    _tell(job, FrameError(pb.CANCELLED, "cancelled by its sender"))
                elif now >= job.deadline:
                    _tell(job, FrameError(pb.EXPIRED, "its budget ran out in the queue"))
                else:
                    group.append(job)
                    samples += job.batch
            if not queue:
                del self._queues[key]
            if group:
                return group
        return []


def _tell(job: Job, result: dict[str, Array] | FrameError) -> None:
    """Answers a job; a stream that cannot take its answer is no reason to stop for the others."""
    try:
        job.answer(job, result)
    except Exception:
        log.exception("an answer could not be given")


class _Utilisation:
    """Share of recent time that was busy, forgotten exponentially."""

    def __init__(self) -> None:
        self._share, self._at = 0.0, time.perf_counter()

    def add(self, start: float, end: float) -> None:
        """Idle until `start`, then busy until `end`."""
        start = max(start, self._at)
        self._share = 1 - (1 - self.at(start)) * math.exp((start - end) / _LOAD_MEMORY_S)
        self._at = end

    def at(self, now: float) -> float:
        return self._share * math.exp(min(self._at - now, 0.0) / _LOAD_MEMORY_S)


class _Recent:
    """How long the latest batches waited, and how they compare with the announced times.

    Where none comes for a while the engine is idle, and a new one would not wait.
    """

    def __init__(self) -> None:
        self._queue_ms, self._slowdown, self._at = 0.0, 1.0, time.perf_counter()

    def add(self, now: float, *, queue_ms: float, slowdown: float) -> None:
        known_ms, known = self.at(now)
        self._queue_ms = known_ms + _NEWEST * (queue_ms - known_ms)
        self._slowdown = known + _NEWEST * (slowdown - known)
        self._at = now

    def at(self, now: float) -> tuple[float, float]:
        """Milliseconds in the queue, and the factor on the announced times."""
        left = math.exp(min(self._at + _LOAD_MEMORY_S - now, 0.0) / _LOAD_MEMORY_S)
        return self._queue_ms * left, self._slowdown**left


def _compute(group: list[Job]) -> list[dict[str, Array] | FrameError]:
    """Results in the order of the group; one job's failure is its own."""
    model, boundary = group[0].model, group[0].boundary
    try:
        if len(group) == 1:
            return [model.runner.run(boundary, group[0].values)]
        return list(model.runner.run_together(boundary, [job.values for job in group]))
    except Exception as error:  # noqa: BLE001 - whatever a kernel raises must not end the engine
        if len(group) == 1:
            log.warning("%s: a frame failed: %r", model.bundle.manifest.name, error)
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            return [FrameError(pb.INTERNAL, f"computing failed ({reason})")]
    return [result for job in group for result in _compute([job])]
