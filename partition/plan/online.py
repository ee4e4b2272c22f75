"""The planner's online form: everything that does not change is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.bundle import Manifest
from .costs import CostTable, Floats, Metrics
from .objective import Constraints, Objective


class OnlinePlanner:
    """Decides again for a new link or load, in tens of microseconds and without keeping anything.

    Raises `PlanError` for an objective or constraint that makes no sense for this table.
    """

    def __init__(
        self, table: CostTable, manifest: Manifest, objective: Objective, constraints: Constraints
    ) -> None:
        self._table, self._objective, self._constraints = table, objective, constraints
        self._upload_ms_mbps = table.nbytes * 8e-3  # ms at 1 Mbit/s
        allowed = np.ones(len(table), bool)
        for excess in constraints.static_excess(table, manifest).values():
            allowed &= excess == 0
        self._barred = np.where(allowed, 0.0, np.inf)
        objective.check(table)

    def decide(
        self,
        *,
        uplink_mbps: float,
        round_trip_ms: float,
        queue_ms: float = 0.0,
        server_factor: float = 1.0,
    ) -> int | None:
        """The index of the best candidate in the table, None where none keeps to the constraints.

        For a cautious decision give a low percentile of the link's rate.
        """
        upload_ms = self._upload_ms_mbps / uplink_mbps
        return self.decide_for(
            upload_ms, self._table.spread_ms, round_trip_ms, queue_ms, server_factor
        )

    def decide_for(
        self,
        upload_ms: Floats,
        late_ms: Floats,
        round_trip_ms: float,
        queue_ms: float,
        server_factor: float,
    ) -> int | None:
        """The same for given times to push each candidate's bytes, `[n]`.

        `late_ms` is how far the 95th percentile lies above the median, for the deadline.
        """
        metrics = self._table.metrics(
            upload_ms,
            round_trip_ms=round_trip_ms,
            queue_ms=queue_ms,
            server_factor=server_factor,
        )
        scores = self.scores(metrics, late_ms)
        best = int(scores.argmin())
        return best if scores[best] < np.inf else None

    def scores(self, metrics: Metrics, late_ms: Floats) -> Floats:
        """Each candidate's score `[n]`, the lower the better, and infinite for what is barred."""
        scores = self._objective.scores(metrics) + self._barred
        p95_ms = metrics.latency_ms + late_ms
        for broken in self._constraints.live_breaks(metrics, p95_ms):
            scores[broken] = np.inf
        return scores

    @property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which candidates keep to the constraints that no link and no load can change, `[n]`."""
        return np.asarray(self._barred == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `low` to `high` of some condition the same candidate is best; None: none is feasible."""

    low: float
    high: float
    boundary: int | None
    codec: str

    def where(self, unit: str) -> str:
        """`below 0.9 Mbit/s`, `0.9 to 41 Mbit/s`, `above 41 Mbit/s` or `everywhere`."""
        low, high = f"{self.low:,.3g}", f"{self.high:,.3g}"
        if np.isinf(self.high):
            return "everywhere" if self.low == 0 else f"above {low} {unit}"
        return f"below {high} {unit}" if self.low == 0 else f"{low} to {high} {unit}"

    def to_json(self) -> dict[str, Any]:
        """The last interval's end is null: it has none."""
        return {
            "from": float(f"{self.low:.4g}"),
            "to": None if np.isinf(self.high) else float(f"{self.high:.4g}"),
            "boundary": self.boundary,
            "codec": self.codec,
        }


def intervals(
    table: CostTable,
    decide: Callable[[float], int | None],
    low: float,
    high: float,
    points: int = 200,
) -> tuple[Interval, ...]:
    """Where the decision changes between `low` and `high`, looked for on a logarithmic grid.

    Each change is then narrowed down by bisection to a thousandth. A candidate that is best only
    between two neighbours of the grid goes unseen.
    """

    def chosen_at(x: float) -> tuple[int | None, str]:
        index = decide(x)
        return (None, "none") if index is None else (int(table.boundary[index]), table.codec[index])

    grid = [1e-6 * low, *np.geomspace(low, high, points), 1e3 * high]
    choices = [chosen_at(float(x)) for x in grid]
    starts = [0.0]
    chosen = [choices[0]]
    for before, after, left, right in zip(choices, choices[1:], grid, grid[1:], strict=False):
        if before == after:
            continue
        a, b = float(left), float(right)
        while b > 1.001 * a:
            middle = (a * b) ** 0.5
            a, b = (middle, b) if chosen_at(middle) == before else (a, middle)
        starts.append(b)
        chosen.append(after)
    ends = [*starts[1:], np.inf]
    return tuple(
        Interval(low=start, high=float(end), boundary=boundary, codec=codec)
        for start, end, (boundary, codec) in zip(starts, ends, chosen, strict=True)
    )
