"""What the candidates cost over the uplink's rate, as the lines of a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import CostTable, Floats
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.planner import Report

LOW_MBPS, HIGH_MBPS, POINTS = 0.1, 1000.0, 161
# These depend on the link, so what breaks one of them here may be allowed elsewhere.
_LIVE = {"--deadline-ms", "--min-fps"}

Choice = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One figure of all candidates as a function of the uplink's rate, other conditions fixed.

    `quantity` is `latency_ms` or `energy_mj`.
    """

    table: CostTable
    report: Report
    link: Link
    quantity: str
    queue_ms: float
    server_factor: float

    def at_rate(self, mbps: Floats) -> Floats:
        """`[rates, candidates]`, NaN where the figure is not known."""
        found = []
        for rate in mbps:
            metrics = self.table.metrics(
                self.table.nbytes * 8e-3 / rate,
                round_trip_ms=self.link.round_trip_ms,
                queue_ms=self.queue_ms,
                server_factor=self.server_factor,
            )
            found.append(metrics.latency_ms if self.quantity == "latency_ms" else metrics.energy_mj)
        return np.array(found)

    @property
    def allowed(self) -> Choice:
        """The candidates that no constraint excludes on every link."""
        barred = {
            (c.boundary, c.codec, c.runtime)
            for c in self.report.candidates
            if not c.feasible and set(c.broken) - _LIVE
        }
        table = self.table
        keys = zip(table.boundary.tolist(), table.codec, table.runtime, strict=True)
        return np.array([key not in barred for key in keys])

    def members(self, boundary: int, codec: str) -> Choice:
        """The candidates with this boundary and codec: one for each runtime."""
        codecs = np.array([c == codec for c in self.table.codec])
        return np.asarray(codecs & (self.table.boundary == boundary))

    def by_boundary(self, values: Floats) -> dict[int, Floats]:
        """For each boundary the least of its candidates' `values`, as `at_rate` gives them."""
        ids = sorted(set(self.table.boundary.tolist()))
        lines = {b: _best(values, self.table.boundary == b) for b in ids}
        return {b: y for b, y in lines.items() if np.isfinite(y).any()}

    def rivals(self, values: Floats) -> list[tuple[str, str, Floats]]:
        """The two that need no split: (class, words, figures)."""
        table = self.table
        found = [("rival-device", "all on the device", table.sends == 0)]
        inputs = (table.boundary == 0) & (table.sends > 0)
        jpeg = self.members(0, "jpeg") & inputs
        known = np.isfinite(values).any(0)
        if (jpeg & known).any():
            found.append(("rival-input", "the input as jpeg", jpeg))
        else:
            found.append(("rival-input", "the input in its best codec", inputs))
        return [(k, w, _best(values, m)) for k, w, m in found if (m & known).any()]

    def plan(self) -> list[tuple[Floats, Floats]]:
        """The plan's rates and figures, one pair for each stretch between two break-even points."""
        found = []
        for interval in self.report.uplinks:
            low, high = max(interval.low, LOW_MBPS), min(interval.high, HIGH_MBPS)
            if interval.boundary is None or low >= high:
                continue
            count = max(2, round(POINTS * (x_of(high) - x_of(low))))
            rates = np.geomspace(low, high, count)
            members = self.members(interval.boundary, interval.codec) & self.allowed
            found.append((rates, _best(self.at_rate(rates), members)))
        return found

    def name_at(self, boundary: int) -> str:
        """What running up to this boundary and sending from there is called."""
        if not self.table.sends[self.table.boundary == boundary].any():
            return "all on the device"
        return f"boundary {boundary}" if boundary else "the input"


def x_of(mbps: float) -> float:
    """The fraction of the axis; rates outside it land on its ends."""
    inside = min(max(mbps, LOW_MBPS), HIGH_MBPS)
    return math.log(inside / LOW_MBPS) / math.log(HIGH_MBPS / LOW_MBPS)


def _best(values: Floats, members: Choice) -> Floats:
    """The least of some columns, NaN where none is known."""
    chosen = np.where(members & np.isfinite(values), values, np.inf).min(1)
    return np.where(np.isinf(chosen), np.nan, chosen)
