"""The latest frames: how many a second, their times, their stages, and the ways they took."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from ..result import Result, Stages

# Long enough for a p99 that means something, short enough to follow what changes.
WINDOW, RATE_S = 512, 5.0
STAGES = tuple(Stages.__dataclass_fields__)


class RecentFrames:
    """Remembers the last `WINDOW` frames, and those of the last seconds among them."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began_s = clock, clock()
        self._ended_s: deque[float] = deque(maxlen=WINDOW)
        self._ways: deque[tuple[float, tuple[int, str]]] = deque(maxlen=WINDOW)
        self._times_ms: deque[float] = deque(maxlen=WINDOW)
        self._stages_ms: deque[tuple[float, ...]] = deque(maxlen=WINDOW)
        self.codec = ""  # of the latest frame

    def add(self, result: Result) -> None:
        """One frame; only those with an answer count for the times."""
        now_s = self._clock()
        self._ended_s.append(now_s)
        self.codec = result.codec
        if result.outputs:
            self._ways.append((now_s, (result.boundary, result.codec)))
            self._times_ms.append(result.total_ms)
            stages = result.stages_ms
            self._stages_ms.append(tuple(getattr(stages, name) for name in STAGES))

    @property
    def answers(self) -> int:
        """How many frames the times are of."""
        return len(self._times_ms)

    def rate(self) -> float:
        """Frames a second over the last seconds."""
        now_s = self._clock()
        recent = [ended_s for ended_s in self._ended_s if now_s - ended_s <= RATE_S]
        if len(recent) == WINDOW:  # there may have been more
            return (WINDOW - 1) / max(now_s - recent[0], 1e-3)
        return len(recent) / max(min(RATE_S, now_s - self._began_s), 1e-3)

    def percentiles_ms(self, wanted: Sequence[float]) -> list[float] | None:
        """Of the answers' times; None where there are none."""
        if not self._times_ms:
            return None
        return [float(ms) for ms in np.percentile(self._times_ms, wanted)]

    def stage_medians_ms(self) -> dict[str, float]:
        """The median of each stage by its name; empty where there are no answers."""
        if not self._stages_ms:
            return {}
        medians = np.median(np.asarray(self._stages_ms), axis=0)
        return {name: float(ms) for name, ms in zip(STAGES, medians, strict=True)}

    def ways(self) -> dict[tuple[int, str], float]:
        """The shares of the answers of the last seconds by boundary and codec, most first.

        Where there are none, the way of the last one.
        """
        now_s = self._clock()
        recent = [way for ended_s, way in self._ways if now_s - ended_s <= RATE_S]
        counts = Counter(recent or [way for _, way in list(self._ways)[-1:]])
        return {way: count / counts.total() for way, count in counts.most_common()}
