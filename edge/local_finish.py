"""The segments behind the split, kept ready for frames that the cloud does not finish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor

from splitpoint.codec import Array, SplitpointError

from .prepare import Prepared
from .runtime import SegmentRunner

log = logging.getLogger("splitpoint.edge")

_NEWEST = 0.2  # weight of the latest time in the mean


class LocalFinish:
    """Runs the rest of the model on the device, from the tensors that it still holds.

    The segments are fetched and loaded in the background, one at a time on the compute thread, so
    that no frame waits for more than one of them.
    """

    def __init__(self, prepared: Prepared, runner: SegmentRunner, pool: Executor) -> None:
        self._prepared, self._runner, self._pool = prepared, runner, pool
        self._loading: asyncio.Task[None] | None = None
        self._ms: dict[int, float] = {}  # by boundary: the mean time of a finish from there
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

    def reserve_ms(self, boundary: int) -> float:
        """What a finish from a boundary is expected to take; 0 if none ever ran."""
        return self._ms.get(boundary, 0.0)

    async def run(
        self, values: Mapping[str, Array], boundary: int
    ) -> tuple[dict[str, Array], float]:
        """All tensors of the model, from those up to a boundary, and the milliseconds it took.

        Waiting for the compute thread counts.
        """
        start = time.perf_counter()
        last = len(self._prepared.manifest.segments)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self._runner.run, values, last, boundary)
        took_ms = 1e3 * (time.perf_counter() - start)
        before = self._ms.get(boundary, took_ms)
        self._ms[boundary] = before + _NEWEST * (took_ms - before)
        return found, took_ms

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
