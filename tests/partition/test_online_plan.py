"""The form of a plan that decides while a device runs."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
from plans import LATENCY, link_of, table_of
from split_tables import (
    manifest_of,
    random_ladders,
    random_profiles,
)
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.plan.planner import make_plan


@pytest.mark.parametrize("objective", ["latency", "energy", "throughput", "latency=1,energy=2"])
def test_online_decides_as_the_plan_does(objective: str) -> None:
    choices = set()
    for seed in range(12):
        edges, worker = random_profiles(seed, runtimes=2)
        ladders = random_ladders(seed, len(worker.segments))
        table = table_of(edges, worker, RADIOS["wifi"], ladders=ladders)
        manifest = manifest_of(len(worker.segments), ladders)
        rng = random.Random(seed)
        constraints = Constraints(
            deadline_ms=rng.choice([None, 120.0]),
            min_fps=rng.choice([None, 8.0]),
            max_accuracy_drop=rng.choice([None, 0.03]),
        )
        online = OnlinePlanner(table, manifest, Objective.parse(objective), constraints)
        for _ in range(6):
            conditions = {
                "queue_ms": rng.choice([0.0, 25.0]),
                "server_factor": rng.choice([0.5, 4.0]),
            }
            mbps, round_trip_ms = 10 ** rng.uniform(-1, 3), rng.uniform(1, 80)
            index = online.decide(uplink_mbps=mbps, round_trip_ms=round_trip_ms, **conditions)
            try:
                chosen = make_plan(
                    manifest,
                    table,
                    link_of(mbps, round_trip_ms),
                    objective=Objective.parse(objective),
                    constraints=constraints,
                    **conditions,
                ).chosen
            except PlanError:
                assert index is None
                choices.add(None)
                continue
            assert index is not None
            assert (chosen.boundary, chosen.codec, chosen.runtime) == (
                table.boundary[index], table.codec[index], table.runtime[index],
            )  # fmt: skip
            choices.add((chosen.boundary, chosen.codec))
    assert len(choices) > 4
    assert None in choices


def test_online_keeps_nothing() -> None:
    edges, worker = random_profiles(3)
    online = OnlinePlanner(
        table_of(edges, worker), manifest_of(len(worker.segments)), LATENCY, Constraints()
    )

    def decide(times: int) -> None:
        for index in range(times):
            online.decide(uplink_mbps=1 + index % 50, round_trip_ms=20, queue_ms=index % 7)

    decide(100)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        decide(2000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2000  # less than a byte a decision
