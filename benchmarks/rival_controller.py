"""The published way to adapt: a low percentile of measured bandwidth, hysteresis, a minimum hold.

As in "reliability-aware split inference": the 20th percentile of the latest bandwidth samples, the
plan that is quickest for it, and a change only for a gain of a tenth, at most once a second. Kinder
to it than its authors: the server's time is taken out of the samples, a frame that was not answered
counts as one that took until its deadline, and while all stays on the device, an 8 kB probe a
second tells it what the link has become.
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from splitpoint.codec import SplitpointError
from splitpoint.edge import EdgeAgent, Result
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.link import DEFAULT_ROUND_TRIP_MS
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.plan.plan import Plan

SAMPLES, PERCENTILE, HYSTERESIS, HOLD_S = 20, 20, 0.1, 1.0
PROBE_BYTES, PROBE_EVERY_S = 8 << 10, 1.0


class Rival:
    """Switches `agent` by what its results say."""

    def __init__(self, table: CostTable, agent: EdgeAgent) -> None:
        self._table, self._agent = table, agent
        self._planner = OnlinePlanner(
            table, agent.manifest, Objective({"latency": 1.0}), Constraints()
        )
        self._mbps: deque[float] = deque(maxlen=SAMPLES)
        self._switched_s = self._probed_s = 0.0

    async def saw(self, result: Result) -> None:
        """One frame has ended."""
        now_s = time.perf_counter()
        if result.bytes_up and result.stages_ms.uplink > 0:
            away_ms = result.stages_ms.uplink + result.stages_ms.downlink - DEFAULT_ROUND_TRIP_MS
            self._mbps.append(result.bytes_up * 8e-3 / max(away_ms, 1.0))
        elif result.bytes_up and not result.outputs:
            # It may not even have left: the rate is at most that.
            stages = result.stages_ms
            away_ms = result.total_ms - stages.edge - stages.encode
            self._mbps.append(result.bytes_up * 8e-3 / max(away_ms, 1.0))
        elif self._agent.is_local and now_s - self._probed_s > PROBE_EVERY_S:
            self._probed_s = now_s
            await self._probe()
        if not self._mbps or now_s - self._switched_s < HOLD_S:
            return
        mbps = float(np.percentile(self._mbps, PERCENTILE))
        best = self._planner.decide(uplink_mbps=mbps, round_trip_ms=DEFAULT_ROUND_TRIP_MS)
        assert best is not None
        if self._ms(best, mbps) < (1 - HYSTERESIS) * self._ms(self._current, mbps):
            self._switched_s = now_s
            await self._agent.switch(
                Plan(boundary=int(self._table.boundary[best]), codec=self._table.codec[best])
            )

    @property
    def _current(self) -> int:
        plan = self._agent.plan
        pairs = list(zip(self._table.boundary, self._table.codec, strict=True))
        return pairs.index((plan.boundary, plan.codec))

    def _ms(self, index: int, mbps: float) -> float:
        metrics = self._table.metrics(
            self._table.nbytes * 8e-3 / mbps,
            round_trip_ms=DEFAULT_ROUND_TRIP_MS,
            queue_ms=0.0,
            server_factor=1.0,
        )
        return float(metrics.latency_ms[index])

    async def _probe(self) -> None:
        workers = self._agent.session.workers
        stream = None if workers is None else workers.stream
        if stream is None:
            return
        try:
            ms = await stream.probe(PROBE_BYTES)
        except SplitpointError:
            return
        self._mbps.append(PROBE_BYTES * 8e-3 / max(ms - DEFAULT_ROUND_TRIP_MS, 1.0))
