"""The controller in ten thousand made-up histories of link, load and device."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from split_tables import manifest_of, random_ladders, random_profiles
from splitpoint.edge.dispatch.controller import HOLD_S, Controller
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.profile.cloud_times import CloudTimes

HISTORIES, PARTS, TABLES = 10_000, 10, 40
AFTER_CHANGE = 20  # frames
NOISE = 0.02  # of what is measured, standard deviation


@dataclass
class World:
    """How things really are, until the next change."""

    mbps: float
    round_trip_ms: float
    queue_ms: float
    server_factor: float
    edge_factor: float

    @classmethod
    def random(cls, rng: random.Random, round_trip_ms: float) -> World:
        return cls(
            mbps=10 ** rng.uniform(-1, 2),  # a probe cannot tell more
            round_trip_ms=round_trip_ms,
            queue_ms=rng.choice([0.0, 0.0, 5.0, 80.0]),
            server_factor=rng.choice([1.0, 1.0, 0.7, 3.0]),
            edge_factor=rng.choice([1.0, 1.0, 0.8, 2.0]),
        )

    def latency_ms(self, table: CostTable) -> np.ndarray:
        return table.metrics(
            table.nbytes * 8e-3 / self.mbps,
            round_trip_ms=self.round_trip_ms,
            queue_ms=self.queue_ms,
            server_factor=self.server_factor,
            edge_factor=self.edge_factor,
        ).latency_ms


def case(seed: int) -> tuple[CostTable, OnlinePlanner]:
    edges, worker = random_profiles(seed, runtimes=1 + seed % 2)
    ladders = random_ladders(seed, len(worker.segments))
    manifest = manifest_of(len(worker.segments), ladders)
    radio = RADIOS["wifi"]
    table = cost_table(manifest, edges, CloudTimes.from_profile(worker), radio=radio)
    limits = Constraints(max_accuracy_drop=[None, 0.03, 0.5][seed % 3])
    return table, OnlinePlanner(table, manifest, Objective({"latency": 1.0}), limits)


def play(table: CostTable, planner: OnlinePlanner, rng: random.Random) -> tuple[float, int]:
    """One history: its last regret, and how many switches it had. Invariants are held inside."""
    allowed = np.flatnonzero(planner.allowed)
    round_trip_ms = rng.uniform(1, 80)
    controller = Controller(
        table,
        planner,
        start=int(rng.choice(list(allowed))),
        budget_ms=10_000,
        round_trip_ms=round_trip_ms,
    )
    if rng.random() < 0.5:
        alone_ms = float(table.edge_ms.max())
        until_ms = zip(map(int, table.boundary), map(float, table.edge_ms), strict=True)
        controller.finishes_in_ms = {at: alone_ms - ms for at, ms in until_ms}
    now_s, interval_s = rng.uniform(0, 1e6), rng.choice([0.1, 0.2, 0.5])
    switched: list[float] = []

    def noisy(value: float) -> float:
        return value * max(1 + rng.gauss(0, NOISE), 0.1)

    changes = rng.randint(1, 2)
    for change in range(changes):
        world = World.random(rng, round_trip_ms)
        latencies_ms = world.latency_ms(table)
        for _ in range(rng.randint(3, 15) if change + 1 < changes else AFTER_CHANGE):
            index = controller.current
            latency_ms = float(latencies_ms[index])
            own = table.edge_ms[index] + table.encode_ms[index]
            controller.computed(index, noisy(own * world.edge_factor))
            end_s = now_s + latency_ms / 1e3
            nbytes = float(table.nbytes[index])
            if table.sends[index]:
                controller.answered(
                    end_s,
                    index,
                    nbytes=nbytes,
                    left_ms=noisy(nbytes * 8e-3 / world.mbps),
                    queue_ms=noisy(world.queue_ms),
                    server_ms=noisy(float(table.server_ms[index]) * world.server_factor),
                )
            while (padding := controller.probe_bytes(end_s)) is not None:
                took_ms = noisy(padding * 8e-3 / world.mbps) + world.round_trip_ms
                end_s += took_ms / 1e3
                controller.echoed(end_s, padding, took_ms)
                controller.load(end_s, [world.queue_ms] * 99, world.server_factor)
            before = controller.current
            switch = controller.decide(end_s)
            if switch is not None:
                assert (switch.before, switch.after) == (before, controller.current)
                assert "->" in switch.why
                assert "\n" not in switch.why
                switched.append(end_s)
            assert controller.current in allowed
            now_s = max(now_s + interval_s, end_s)
    gaps = np.diff(switched)
    assert (gaps >= HOLD_S).all()
    best = latencies_ms[allowed].min()
    return max(latencies_ms[controller.current] - best - 1.0, 0.0) / best, len(switched)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_histories(part: int) -> None:
    """Within 5 % of the best plan 20 frames after the last change, and never a plan that is barred.

    The millisecond beside the 5 % is what the clock of a real machine could not tell either.
    """
    cases = [case(seed) for seed in range(TABLES)]
    regrets, switches = [], 0
    for history in range(part, HISTORIES, PARTS):
        table, planner = cases[history % TABLES]
        regret, count = play(table, planner, random.Random(history))
        regrets.append(regret)
        switches += count
    assert len(regrets) == HISTORIES // PARTS
    assert max(regrets) <= 0.05, np.flatnonzero(np.array(regrets) > 0.05)[:10] * PARTS + part
    assert switches > len(regrets) / 4  # the histories did ask for something
