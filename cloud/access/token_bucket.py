"""So many a second, and after a pause some at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

Clock = Callable[[], float]


class TokenBucket:
    """Lets `per_s` through a second; after a pause as many at once as in one second, 1 at least."""

    def __init__(self, per_s: float, clock: Clock = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._most = max(per_s, 1.0)
        self._left, self._at_s = self._most, clock()

    def take(self) -> bool:
        """Whether one more may go now."""
        if math.isinf(self._per_s):
            return True
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    @property
    def is_full(self) -> bool:
        """Whether it lets through as many as at first."""
        if math.isinf(self._per_s):
            return True
        return self._left + (self._clock() - self._at_s) * self._per_s >= self._most
