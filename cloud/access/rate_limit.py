"""How often somebody may ask who has not said who he is."""

from __future__ import annotations

import time

from .token_bucket import Clock, TokenBucket

MOST_KNOWN = 1024  # addresses; where they are more, those that asked longest ago are forgotten


class RateLimit:
    """Lets everybody ask `per_s` times a second, and as many times at once after a pause."""

    def __init__(self, per_s: float, clock: Clock = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._known: dict[str, TokenBucket] = {}  # who asked last is last

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def take(self, who: str) -> bool:
        """Whether `who` may ask once more now."""
        bucket = self._known.pop(who, None) or TokenBucket(self._per_s, self._clock)
        self._known[who] = bucket
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return bucket.take()
