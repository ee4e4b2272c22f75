"""The planner's online form: everything that does not change is computed once."""

from __future__ import annotations

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
