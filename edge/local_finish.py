"""The segments behind the split, kept ready for frames that the cloud does not finish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor

import psutil
from splitpoint.codec import Array, SplitpointError
from splitpoint.partition.bundle import Manifest

from .prepare import Prepared
from .runtime import SegmentRunner

log = logging.getLogger("splitpoint.edge")

_NEWEST = 0.2  # weight of the latest time in the mean


class LocalFinish:
    """Runs the rest of the model on the device, from the tensors that it still holds.

    The segments are fetched and loaded in the background, one at a time on the compute thread, so
    that no frame waits for more than one of them.
    """

    def __init__(
        self,
        prepared: Prepared,
        runner: SegmentRunner,
        pool: Executor,
        expected_ms: Mapping[int, float] | None = None,
    ) -> None:
        self._prepared, self._runner, self._pool = prepared, runner, pool
        self._loading: asyncio.Task[None] | None = None
        # By boundary: the mean time of a finish from there; before the first, what was predicted.
        self._ms: dict[int, float] = dict(expected_ms or {})
        self._begun: list[float] = []  # expected milliseconds of each finish under way
        self.error: SplitpointError | None = None  # why the segments are not all here

    @property
    def ready(self) -> bool:
        """Whether all segments are loaded."""
        return self._runner.loaded == len(self._prepared.manifest.segments)

    def start(self) -> None:
        """Begins, or begins again, to load what is missing."""
        if not self.ready and (self._loading is None or self._loading.done()):
            self._loading = asyncio.create_task(self._load(), name="load-local-segments")

    async def wait(self) -> None:
        """Until what `start` began has ended, well or not."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def close(self) -> None:
        """Stops loading."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def expected_ms(self, boundary: int) -> float:
        """What a finish from a boundary takes; 0 if none ever ran."""
        return self._ms.get(boundary, 0.0)

    def reserve_ms(self, boundary: int, under_way: int) -> float:
        """What the finishes of so many frames take, which may all become due at once."""
        return self.expected_ms(boundary) * max(under_way, 1)

    @property
    def backlog_ms(self) -> float:
        """What those that were begun and not ended are expected to take still."""
        return sum(self._begun)

    @property
    def busy(self) -> bool:
        """Whether any finish is under way."""
        return bool(self._begun)

    async def run(
        self, values: Mapping[str, Array], boundary: int
    ) -> tuple[dict[str, Array], float]:
        """All tensors of the model, from those up to a boundary, and the milliseconds it took.

        Waiting for the compute thread counts in the time that is returned, not in what is expected
        of the next.
        """
        start = time.perf_counter()
        last = len(self._prepared.manifest.segments)
        loop = asyncio.get_running_loop()
        expected_ms = self.expected_ms(boundary)
        self._begun.append(expected_ms)
        try:
            found, own_ms = await loop.run_in_executor(
                self._pool, self._run, values, last, boundary
            )
        finally:
            self._begun.remove(expected_ms)
        before = self._ms.get(boundary, own_ms)
        self._ms[boundary] = before + _NEWEST * (own_ms - before)
        return found, 1e3 * (time.perf_counter() - start)

    def _run(
        self, values: Mapping[str, Array], last: int, boundary: int
    ) -> tuple[dict[str, Array], float]:
        start = time.perf_counter()
        found = self._runner.run(values, last, boundary)
        return found, 1e3 * (time.perf_counter() - start)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            paths = await self._prepared.segments(len(self._prepared.manifest.segments))
            for count in range(1, len(paths) + 1):
                await loop.run_in_executor(self._pool, self._runner.load, paths[:count])
            self.error = None
        except SplitpointError as error:
            self.error = error
            log.warning("frames cannot be finished on the device yet: %s", error)


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
