"""Plays a slower device on this one, for emulation."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
_MEMORY = 50  # runs


class Slowdown:
    """Makes work take `factor` times as long as it takes here at its best, by waiting after it.

    What is waited for follows the fastest of the latest runs: a hiccup of this machine is to be one
    hiccup of the slower device, and not `factor` of them. A factor of 1 changes nothing.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._latest: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=_MEMORY))

    def stretch(self, key: Hashable, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns, later; runs of the same `key` are taken to take equally long."""
        if self.factor == 1:
            return work(*arguments)
        start = time.perf_counter()
        result = work(*arguments)
        runs = self._latest[key]
        runs.append(time.perf_counter() - start)
        time.sleep((self.factor - 1) * min(runs))
        return result
