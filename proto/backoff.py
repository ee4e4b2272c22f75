"""Pauses between attempts at what did not work."""

from __future__ import annotations


class Backoff:
    """Each pause is twice as long as the one before, up to `longest_s`, which may be changed."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self.longest_s = first_s, longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to wait before the next attempt."""
        pause_s = min(self._next_s, self.longest_s)
        self._next_s = 2 * pause_s
        return pause_s

    def reset(self) -> None:
        """It has worked."""
        self._next_s = self._first_s
