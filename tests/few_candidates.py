"""A table of four candidates for the controller, and what a test does with it."""

from __future__ import annotations

from collections.abc import Sequence

from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.controller import (
    IN_A_ROW,
    Controller,
    Switch,
)
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.profile.cloud_times import CloudTimes

RAW0, RAW1 = 100_000.0, 20_000.0  # bytes of the input, and of boundary 1
ROUND_TRIP_MS = 10.0


def table_of(
    edge_ms: Sequence[float] = (20.0, 80.0), cloud_ms: Sequence[float] = (1.0, 4.0)
) -> CostTable:
    """All on the device takes 100 ms; the input or boundary 1 may be sent, raw or as q8."""
    codecs = [codec_time(0, "raw", RAW0), codec_time(1, "raw", RAW1), codec_time(1, "q8", RAW1 / 4)]
    return cost_table(
        manifest_of(2),
        [profile_of(edge_ms, codecs)],
        CloudTimes(segment_ms=tuple(cloud_ms)),
        radio=RADIOS["wifi"],
    )


TABLE = table_of()
LOCAL, INPUT, SPLIT, SMALL = range(4)


def controller_of(
    start: int,
    mbps: float | None,
    table: CostTable = TABLE,
    *,
    budget_ms: float = 10_000.0,
    constraints: Constraints | None = None,
) -> Controller:
    planner = OnlinePlanner(
        table, manifest_of(2), Objective({"latency": 1.0}), constraints or Constraints()
    )
    controller = Controller(
        table, planner, start=start, budget_ms=budget_ms, round_trip_ms=ROUND_TRIP_MS
    )
    if mbps is not None:
        controller.knows(0.0, [mbps] * 4)
    return controller


def decided(controller: Controller, now_s: float = 0.0, frames: int = IN_A_ROW) -> Switch | None:
    """What comes of so many frames that show nothing new."""
    for _ in range(frames):
        switch = controller.decide(now_s)
        if switch is not None:
            return switch
    return None


def answer(controller: Controller, now_s: float, mbps: float, **changed: float) -> None:
    """A frame of the present plan over a link of `mbps`, all else as its profile says."""
    index = controller.current
    nbytes = float(TABLE.nbytes[index])
    seen = {"queue_ms": 0.0, "server_ms": float(TABLE.server_ms[index])} | changed
    controller.answered(now_s, index, nbytes=nbytes, left_ms=nbytes * 8e-3 / mbps, **seen)
