"""Plays a slower device on this one, for emulation."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
_MEMORY = 15  # runs


class Slowdown:
    """Makes work take `factor` times as long as it usually takes here, by waiting after it.

    What is waited for follows the median of the latest runs: a hiccup of this machine is to be one
    hiccup of the slower device, and not `factor` of them. A factor of 1 changes nothing.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._usual: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=_MEMORY))

    def stretch(self, key: Hashable, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns, later; runs of the same `key` are taken to take equally long."""
        if self.factor == 1:
            return work(*arguments)
        start = time.perf_counter()
        result = work(*arguments)
        runs = self._usual[key]
        runs.append(time.perf_counter() - start)
        time.sleep((self.factor - 1) * statistics.median(runs))
        return result
