"""The segments behind the split, kept ready for frames that the cloud does not finish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Executor

import psutil
from splitpoint.codec import Array, SplitpointError
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.proto.tasks import cancel_and_wait

from ..errors import FrameLostError
from ..store.prepare import Prepared
from .segments import Segments, zeros_at

log = logging.getLogger("splitpoint.edge")

LONGEST_WAIT_S = 10.0  # of frames for segments that are on their way, perhaps on a slow link
_POLL_S = 0.02
_NEWEST = 0.2  # weight of the latest time in the mean


class _Work:
    """A finish on the compute thread, waiting for it, or given up and still in a segment there."""

    def __init__(self, expected_ms: float, segments: int) -> None:
        self._expected_ms, self._segments = expected_ms, max(segments, 1)
        self._begun_s: float | None = None
        self._segment_begun_s = 0.0
        self.given_up = False

    def begins_segment(self) -> None:
        """Called on the compute thread; raises `CancelledError` where nobody waits any more."""
        if self.given_up:
            raise CancelledError
        self._segment_begun_s = time.perf_counter()
        self._begun_s = self._begun_s or self._segment_begun_s

    @property
    def left_ms(self) -> float:
        """What it is expected to keep the thread for still."""
        if self._begun_s is None:
            return 0.0 if self.given_up else self._expected_ms
        if self.given_up:  # the segment that it is in, taken to be as long as the others
            left_ms, since_s = self._expected_ms / self._segments, self._segment_begun_s
        else:
            left_ms, since_s = self._expected_ms, self._begun_s
        return max(left_ms - 1e3 * (time.perf_counter() - since_s), 0.0)


class LocalFinish:
    """Runs the rest of the model on the device, from the tensors that it still holds.

    The segments are fetched, loaded and timed in the background, one at a time on the compute
    thread, so that no frame waits for more than one of them. `expected_ms` says by boundary what a
    finish in this runtime takes, and spares the timing. Where it is not `wanted`, it never begins.
    """

    def __init__(
        self,
        prepared: Prepared,
        segments: Segments,
        pool: Executor,
        expected_ms: Mapping[int, float],
        *,
        wanted: bool = True,
    ) -> None:
        self._prepared, self._segments, self._pool = prepared, segments, pool
        self.wanted, self._whole = wanted, False
        self._loading: asyncio.Task[None] | None = None
        self._began_s = 0.0
        self.predicted_ms: Mapping[int, float] = dict(expected_ms)  # before any finish
        # By boundary: the mean time of a finish from there; before the first, what was predicted.
        self._ms: dict[int, float] = dict(self.predicted_ms)
        self._under_way: list[_Work] = []
        self.error: SplitpointError | None = None  # why the segments are not all here

    @property
    def ready(self) -> bool:
        """Whether it is wanted, and all segments are loaded."""
        return self.wanted and self._segments.loaded == len(self._prepared.manifest.segments)

    def start(self) -> None:
        """Begins, or begins again, to load what is missing."""
        if self.wanted and not self._whole and (self._loading is None or self._loading.done()):
            self._began_s = time.perf_counter()
            self._loading = asyncio.create_task(self._load(), name="load-local-segments")

    async def wait(self) -> None:
        """Until what `start` began has ended, well or not."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def ready_within(self, seconds: float) -> bool:
        """Whether it is ready, in so many seconds if it is being loaded.

        Frames wait for `LONGEST_WAIT_S` since that began: it may hang, and then nobody waits more.
        """
        end_s = min(time.perf_counter() + seconds, self._began_s + LONGEST_WAIT_S)
        while not self.ready and self._loading is not None and not self._loading.done():
            if time.perf_counter() >= end_s:
                break
            await asyncio.sleep(_POLL_S)
        return self.ready

    async def close(self) -> None:
        """Stops loading."""
        await cancel_and_wait(self._loading)

    def expected_ms(self, boundary: int) -> float:
        """What a finish from a boundary takes; 0 before the segments are here."""
        return self._ms.get(boundary, 0.0)

    def timed(self, boundary: int, ms: float) -> None:
        """A finish from a boundary took so long, by itself."""
        before = self._ms.get(boundary, ms)
        self._ms[boundary] = before + _NEWEST * (ms - before)

    def reserve_ms(self, boundary: int, under_way: int) -> float:
        """What the finishes of so many frames take, which may all become due at once."""
        return self.expected_ms(boundary) * max(under_way, 1)

    @property
    def backlog_ms(self) -> float:
        """What is expected to keep the compute thread busy still, of the finishes given to it."""
        return sum(work.left_ms for work in self._under_way)

    @property
    def busy(self) -> bool:
        """Whether any finish waits for the compute thread or is on it, wanted or not."""
        return bool(self._under_way)

    async def run(
        self, values: Mapping[str, Array], boundary: int
    ) -> tuple[dict[str, Array], float]:
        """The model's outputs, from the tensors of a boundary, and the milliseconds it took.

        Waiting for the compute thread counts in the time that is returned, not in what is expected
        of the next. One that is cancelled ends with the segment that it is in.
        """
        start = time.perf_counter()
        last = len(self._prepared.manifest.segments)
        loop = asyncio.get_running_loop()
        work = _Work(self.expected_ms(boundary), last - boundary)
        self._under_way.append(work)
        running = self._pool.submit(self._run, values, last, boundary, work)
        # Only the thread knows when it is free again: what is cancelled may be in a segment.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._under_way.remove, work))
        try:
            found, own_ms = await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            work.given_up = True
            raise
        self.timed(boundary, own_ms)
        return found, 1e3 * (time.perf_counter() - start)

    def _run(
        self, values: Mapping[str, Array], last: int, boundary: int, work: _Work
    ) -> tuple[dict[str, Array], float]:
        start = time.perf_counter()
        found = self._segments.run(values, last, boundary, work.begins_segment)
        return found, 1e3 * (time.perf_counter() - start)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            if not self.ready:
                last = len(self._prepared.manifest.segments)
                await self._prepared.fetch_segments(last, ONNX)
                took_ms = [
                    await loop.run_in_executor(self._pool, self._load_one, index)
                    for index in range(last)
                ]
                if not self.predicted_ms:
                    self.predicted_ms = {at: sum(took_ms[at:]) for at in range(len(took_ms) + 1)}
                    self._ms = {**self.predicted_ms, **self._ms}
            self.error = None
            await self._prepared.all_here()
            self._whole = True
        except SplitpointError as error:
            self.error = error
            log.warning("frames cannot be finished on the device yet: %s", error)
        except Exception as error:  # no memory left, say: frames go on without
            self.error = FrameLostError(f"loading segments failed ({type(error).__name__})")
            log.exception("frames cannot be finished on the device")

    def _load_one(self, index: int) -> float:
        """Loads a segment, if need be; what it takes, or 0 where that is known."""
        self._segments.load(index + 1)
        if self.predicted_ms:
            return 0.0
        manifest = self._prepared.manifest
        zeros = zeros_at(manifest.boundaries[index].tensors, manifest.stand_ins)
        start = time.perf_counter()
        self._segments.run(zeros, index + 1, index)
        return 1e3 * (time.perf_counter() - start)


def fits(manifest: Manifest, loaded: int, max_edge_mb: float | None) -> bool:
    """Whether the segments that are not `loaded` may be; says so in the log where they may not.

    They are taken to need what they have in weights, beside what the process has now.
    """
    if max_edge_mb is None:
        return True
    weights = [manifest.files[segment.weights].nbytes for segment in manifest.segments[loaded:]]
    need_mb = (psutil.Process().memory_info().rss + sum(weights)) / 1e6
    if need_mb <= max_edge_mb:
        return True
    log.warning(
        "frames that the cloud does not answer cannot be finished on the device: all segments "
        "would take about %.0f MB (modelled), --max-edge-mb allows %g",
        need_mb,
        max_edge_mb,
    )
    return False
