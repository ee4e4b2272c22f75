"""Why a candidate stands where it does, and why none can be chosen, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..errors import PlanError
from .costs import CostTable, Floats, Metrics
from .plan import name_of

_WHY_NOT = {
    "--deadline-ms": "its 95th percentile is over the deadline",
    "--min-fps": "its stream is too slow",
    "--max-accuracy-drop": "it changes answers too much",
    "--max-edge-mb": "it needs too much memory on the device",
    "--max-kb-per-frame": "it sends too much",
    "--must-run-on-edge": "a layer that must run on the device would not",
    "--must-not-upload-input": "it uploads the input",
}
# What says how far a candidate is from a limit, where that is not known.
_FOUND_OUT = {
    "--max-accuracy-drop": "compile with --calibrate DIR, which sees how many answers change",
    "--max-edge-mb": "measure again with `splitpoint profile`, which sees what segments take",
}


class Reasons:
    """Why each candidate stands where it does; `best` is the index of the chosen one.

    `stages` add up to the latencies of `metrics`.
    """

    def __init__(
        self,
        table: CostTable,
        metrics: Metrics,
        stages: Mapping[str, Floats],
        excess: Mapping[str, Floats],
        best: int,
    ) -> None:
        self._table, self._metrics, self._excess, self._best = table, metrics, excess, best
        self._stages = stages

    def broken(self, index: int) -> tuple[str, ...]:
        """The options whose limits a candidate does not keep."""
        return tuple(flag for flag, excess in self._excess.items() if excess[index] > 0)

    def why(self, index: int) -> str:
        """The reason for its place, or what keeps it out."""
        broken = self.broken(index)
        if broken:
            return "; ".join(f"{_WHY_NOT[flag]} ({flag})" for flag in broken)
        if index == self._best:
            return self._compared()
        latency = self._metrics.latency_ms
        later_ms = latency[index] - latency[self._best]
        if later_ms <= 0:
            return f"{-later_ms:.1f} ms sooner than the best, but worse by the objective"
        return self._later(index)

    def _later(self, index: int) -> str:
        """By how much, and what each stage takes more or less than the best one's.

        Sums are rounded, and not what each stage adds to them: what is read adds up.
        """
        more_ms = {name: float(ms[index] - ms[self._best]) for name, ms in self._stages.items()}
        names = sorted(more_ms, key=lambda name: -more_ms[name])
        sums = np.cumsum([more_ms[name] for name in names]).round(1)
        shown = np.diff(sums, prepend=0.0).round(1)
        stages = [f"{name} {ms:+.1f}" for name, ms in zip(names, shown, strict=True) if ms]
        return f"{sums[-1]:.1f} ms later than the best" + (
            f": {', '.join(stages)} ms" if stages else ""
        )

    def _compared(self) -> str:
        """How the chosen one does against the two rivals that need no split."""
        table, best = self._table, self._best
        latency = self._metrics.latency_ms
        allowed = sum(self._excess.values(), np.zeros(len(table))) == 0
        rivals = {
            "all on the device": allowed & (table.sends == 0),
            "sending the input": allowed & (table.boundary == 0) & (table.sends == 1),
        }
        parts = []
        for name, members in rivals.items():
            if members.any() and not members[best]:
                ms = latency[members].min()
                parts.append(f"{ms / latency[best]:.2f}x as fast as {name} ({ms:.1f} ms)")
        return f"predicted {latency[best]:.1f} ms" + (": " if parts else "") + ", ".join(parts)


def infeasible(
    table: CostTable, metrics: Metrics, p95_ms: Floats, excess: Mapping[str, Floats]
) -> PlanError:
    """Which constraint binds, and what it would have to be for the candidate that comes nearest.

    That is none which does what must not be: a limit has a next value, a layer that must stay none.
    """
    binding = []
    for flag in excess:
        others = sum((e for f, e in excess.items() if f != flag), np.zeros(len(table)))
        if (others == 0).any():
            binding.append(flag)
    what = (
        f"no plan keeps to {' or to '.join(binding)}"
        if binding
        else f"no plan keeps to {' and '.join(f for f, e in excess.items() if e.any())} together"
    )
    enough = {
        "--deadline-ms": p95_ms,
        "--min-fps": 1e3 / metrics.bottleneck_ms,
        "--max-accuracy-drop": 100 * table.drop_bound,
        "--max-edge-mb": table.edge_mb,
        "--max-kb-per-frame": table.nbytes / 1e3,
    }
    helps = np.ones(len(table), bool)
    for flag, over in excess.items():
        helps &= (over == 0) | np.isfinite(enough.get(flag, np.full(len(table), np.nan)))
    if not helps.any():
        unknown = [_FOUND_OUT[f] for f, e in excess.items() if e.all() and f in _FOUND_OUT]
        return PlanError(what, ", ".join(unknown) or "leave one of them out")
    worst = np.where(helps, np.max(list(excess.values()), 0), np.inf)
    nearest = int(np.lexsort((metrics.latency_ms, worst))[0])
    limits = [
        f"{flag} {_limit(float(enough[flag][nearest]), least=flag == '--min-fps')}"
        for flag, over in excess.items()
        if over[nearest] > 0
    ]
    name = name_of(int(table.boundary[nearest]), table.codec[nearest])
    return PlanError(what, f"{name} would do with {' and '.join(limits)}")


def _limit(value: float, *, least: bool) -> str:
    """A limit of three digits that the value keeps to; `least` where it is a lower one."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{(math.floor if least else math.ceil)(value / unit) * unit:.10g}"
