"""What each of several sources adds to a run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from splitpoint.edge import Result

from .result_lines import source_of


class SourceCounts:
    """A sink that counts frames by source and outcome, and how many came a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._counts = clock, dict[str, Counter[str]]()
        self._first_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}

    def add(self, result: Result) -> None:
        """One frame; those of an only source have no name and are not counted here."""
        name = source_of(result)
        if not name:
            return
        self._counts.setdefault(name, Counter())[result.outcome.value] += 1
        self._last_s[name] = self._clock()
        self._first_s.setdefault(name, self._last_s[name])

    def close(self) -> None:
        """The sums stay."""

    def summary(self) -> dict[str, Any]:
        """By name: frames, frames a second from the first to the last, and outcomes."""
        return {
            name: {
                "frames": counts.total(),
                "fps": self._fps(name, counts.total()),
                "outcomes": dict(counts),
            }
            for name, counts in sorted(self._counts.items())
        }

    def _fps(self, name: str, frames: int) -> float | None:
        seconds = self._last_s[name] - self._first_s[name]
        return round((frames - 1) / seconds, 2) if seconds > 0 else None
