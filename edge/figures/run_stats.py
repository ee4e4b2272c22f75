"""What a run adds up to."""

from __future__ import annotations

from typing import Any

from ..result import Outcome, Result
from .quantiles import Quantiles

PERCENTILES = (50, 95, 99)


class RunStats:
    """A sink that counts outcomes and bytes, and keeps the percentiles of the answers' times.

    Its memory does not grow with the run.
    """

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.bytes_up = 0
        self.busy_ms = 0.0  # what this device computed and encoded
        self._times = Quantiles()

    def add(self, result: Result) -> None:
        """Counts one frame; only those with an answer count for the times."""
        self.outcomes[result.outcome] += 1
        self.bytes_up += result.bytes_up
        self.busy_ms += result.stages_ms.edge + result.stages_ms.encode
        if result.outputs:
            self._times.add(result.total_ms)

    def close(self) -> None:
        """The sums stay."""

    @property
    def frames(self) -> int:
        """All frames; each has exactly one outcome."""
        return sum(self.outcomes.values())

    @property
    def answers(self) -> int:
        """Frames that have an answer, from wherever."""
        return self.outcomes[Outcome.ANSWERED] + self.outcomes[Outcome.LOCAL]

    def summary(self) -> dict[str, Any]:
        """Frames, outcomes, percentiles in milliseconds, bytes; without energy."""
        found = self._times.percentiles(PERCENTILES)
        times = [None] * len(PERCENTILES) if found is None else [round(ms, 3) for ms in found]
        return {
            "frames": self.frames,
            "outcomes": {outcome.value: count for outcome, count in self.outcomes.items()},
            **{f"p{percent}_ms": ms for percent, ms in zip(PERCENTILES, times, strict=True)},
            "bytes_up": self.bytes_up,
        }
