"""What a piece of a frame's work usually takes, and whether another thread is worth it."""

from __future__ import annotations

import math

# The way to another thread and back takes longer than this: shorter work is done in place.
IN_PLACE_MS = 0.3
# Work that takes so little of what goes before it delays nothing in the same thread.
LITTLE = 0.05
_SLOWER = 0.125  # weight of what took longer: most that does was only interrupted


class WorkTime:
    """Milliseconds, infinite before any are known. What is interrupted now and then stays short."""

    def __init__(self) -> None:
        self.ms = math.inf

    def took(self, ms: float) -> None:
        """Once it took so long."""
        self.ms = ms if ms < self.ms else self.ms + _SLOWER * (ms - self.ms)

    @property
    def is_short(self) -> bool:
        """Whether handing it to another thread takes longer."""
        return self.ms < IN_PLACE_MS

    def is_little_beside(self, other: WorkTime) -> bool:
        """Whether it may as well go on in the thread that has done the other."""
        return self.ms < LITTLE * other.ms < math.inf
