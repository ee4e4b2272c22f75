"""The numbers of an agent's frames, and how they ended."""

from __future__ import annotations

from ..result import Outcome


class FrameCount:
    """Numbers frames from 1, whichever model they go through; `outcomes` says how many ended so."""

    def __init__(self) -> None:
        self._last = 0
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)

    def next_number(self) -> int:
        """Another frame's."""
        self._last += 1
        return self._last
