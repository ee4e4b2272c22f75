"""Plans for tables of times that a test makes up."""

from __future__ import annotations

from split_tables import (
    Ladders,
    codec_time,
    manifest_of,
    profile_of,
)
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.energy.radio import NO_RADIO, Radio
from splitpoint.partition.plan.cost_rows import MESSAGE_BYTES
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.planner import Prediction, Report, make_plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.profile import Profile

LATENCY = Objective.parse("latency")


def link_of(mbps: float, round_trip_ms: float = 20.0) -> Link:
    return Link(name="given", uplink_mbps=mbps, round_trip_ms=round_trip_ms, source="given")


def table_of(
    edges: list[Profile],
    worker: Profile,
    radio: Radio = NO_RADIO,
    *,
    ladders: Ladders | None = None,
    **options: object,
) -> CostTable:
    manifest = manifest_of(len(worker.segments), ladders)
    return cost_table(manifest, edges, CloudTimes.from_profile(worker), radio=radio, **options)


def plan_of(
    edges: list[Profile],
    worker: Profile,
    link: Link,
    objective: str = "latency",
    *,
    radio: Radio = NO_RADIO,
    power: PowerModel | None = None,
    codecs: frozenset[str] | None = None,
    ladders: Ladders | None = None,
    queue_ms: float = 0.0,
    server_factor: float = 1.0,
    **limits: object,
) -> Report:
    return make_plan(
        manifest_of(len(worker.segments), ladders),
        table_of(edges, worker, radio, power=power, codecs=codecs, ladders=ladders),
        link,
        objective=Objective.parse(objective),
        constraints=Constraints(**limits),
        queue_ms=queue_ms,
        server_factor=server_factor,
    )


def one(report: Report, boundary: int, codec: str) -> Prediction:
    (found,) = (c for c in report.candidates if (c.boundary, c.codec) == (boundary, codec))
    return found


# A worked example. Device: 10, 20, 40 ms; worker: 1, 2, 4 ms; 8 Mbit/s carry a kilobyte a
# millisecond; the round trip is 20 ms.
EDGE = profile_of(
    [10, 20, 40],
    [
        codec_time(0, "raw", 150_000 - MESSAGE_BYTES),
        codec_time(0, "jpeg", 11_900, encode_ms=3, decode_ms=2),
        codec_time(1, "q8", 4_900, encode_ms=1, decode_ms=0.5),
        codec_time(2, "q8", 1_900, encode_ms=0.5, decode_ms=0.25),
        codec_time(2, "q4", 900, encode_ms=0.5, decode_ms=0.25),
    ],
    mj=[50, 90, 200],
    memory_mb=[10, 20, 30],
    energy_kind="measured",
    busy_w=5.0,
    idle_w=2.0,
)
WORKER = profile_of([1, 2, 4], [codec_time(0, "jpeg", 11_900, decode_ms=1.5)], runtime="torch")
MBPS = 8.0


def upper_end(changed: int, judged: int) -> float:
    """Where a share of `changed` in `judged` lies 1.96 deviations below: the larger root of
    (share - p)^2 = z^2 p (1 - p) / judged, found by bisection and not by Wilson's formula."""
    share = changed / judged
    low, high = share, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if (middle - share) ** 2 > 1.959964**2 * middle * (1 - middle) / judged:
            high = middle
        else:
            low = middle
    return high
