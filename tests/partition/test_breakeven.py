"""The uplinks and queues at which another candidate becomes the best."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from plans import EDGE, MBPS, WORKER, link_of, plan_of
from split_tables import (
    codec_time,
    profile_of,
    random_ladders,
    random_profiles,
)
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.cost_rows import MESSAGE_BYTES
from splitpoint.partition.plan.link import Link


@pytest.mark.parametrize("objective", ["latency", "energy", "throughput"])
def test_break_even_uplinks(objective: str) -> None:
    """Away from an edge by half a percent, a fresh plan names what the interval names."""
    several = 0
    for seed in range(12):
        edges, worker = random_profiles(seed)
        arguments = dict(
            radio=RADIOS["wifi"],
            ladders=random_ladders(seed, len(worker.segments)),
            queue_ms=3.0,
            server_factor=1.2,
        )
        report = plan_of(edges, worker, link_of(5), objective, **arguments)
        found = report.uplinks
        several += len(found) > 1
        assert found[0].low == 0
        assert found[-1].high == math.inf
        assert all(a.high == b.low for a, b in pairwise(found))
        edges_mbps = [interval.high for interval in found[:-1]]
        rng = random.Random(seed)
        near = [edge * factor for edge in edges_mbps for factor in (1 / 1.005, 1.005)]
        for mbps in [*near, *(10 ** rng.uniform(-2, 4) for _ in range(12))]:
            if any(abs(mbps / edge - 1) < 0.0045 for edge in edges_mbps):
                continue
            (inside,) = (i for i in found if i.low < mbps <= i.high)
            fresh = plan_of(edges, worker, link_of(mbps), objective, **arguments).chosen
            assert (inside.boundary, inside.codec) == (fresh.boundary, fresh.codec), (seed, mbps)
    assert several > 6


def test_break_even_queues() -> None:
    several = 0
    for seed in range(12):
        edges, worker = random_profiles(seed)
        ladders = random_ladders(seed, len(worker.segments))
        found = plan_of(edges, worker, link_of(60), ladders=ladders).queues
        several += len(found) > 1
        assert found[0].low == 0
        assert found[-1].high == math.inf
        assert found[-1].codec == "none"  # whoever waits long enough does it himself
        rng = random.Random(seed)
        for queue_ms in (0.0, *(10 ** rng.uniform(-2, 5) for _ in range(12))):
            if any(abs(queue_ms / interval.high - 1) < 0.005 for interval in found):
                continue
            (inside,) = (i for i in found if i.low <= queue_ms < i.high)
            fresh = plan_of(edges, worker, link_of(60), queue_ms=queue_ms, ladders=ladders).chosen
            assert (inside.boundary, inside.codec) == (fresh.boundary, fresh.codec)
    assert several > 3


def test_break_even_by_hand() -> None:
    """30 ms on the device against 20.5 + 2.5 ms and a kilobyte: even at 8/7 Mbit/s."""
    edge = profile_of([10, 20], [codec_time(0, "raw", 1000 - MESSAGE_BYTES)])
    low, high = plan_of([edge], profile_of([1, 1.5]), link_of(MBPS)).uplinks
    assert (low.boundary, low.codec, high.boundary, high.codec) == (2, "none", 0, "raw")
    assert low.high == high.low == pytest.approx(8 / 7, rel=0.002)
    assert high.to_json() == {
        "from": pytest.approx(8 / 7, rel=0.002), "to": None, "boundary": 0, "codec": "raw",
    }  # fmt: skip


def test_break_even_on_a_link_that_hardly_carries_anything() -> None:
    """A device of a minute a frame sends its picture even then, but not over any link at all."""
    edge = profile_of([60_000], [codec_time(0, "raw", 10_000 - MESSAGE_BYTES)])
    worker = profile_of([1])
    report = plan_of([edge], worker, link_of(MBPS))
    assert plan_of([edge], worker, link_of(0.001)).chosen.codec == "none"
    assert report.uplinks[0].codec == "none"


def test_break_even_tells_neighbours_apart() -> None:
    """Where only the runtime changes, an interval says so, or there is only one."""
    for seed in (5, 6, 27, 39):
        edges, worker = random_profiles(seed, runtimes=2)
        report = plan_of(edges, worker, link_of(5), radio=RADIOS["wifi"])
        names = [
            {key: value for key, value in interval.to_json().items() if key not in ("from", "to")}
            for interval in report.uplinks
        ]
        assert all(before != after for before, after in pairwise(names))


def test_break_even_queues_agree_with_the_choice_on_an_unsteady_link() -> None:
    """The interval around the planned queue names the chosen one, deadline and spread included."""
    edges, worker = random_profiles(3)
    rates = (2.0, 20.0, 20.0, 20.0, 20.0)
    unsteady = Link(
        name="probed", uplink_mbps=20, round_trip_ms=20, source="probed", probed_mbps=rates
    )
    report = plan_of(edges, worker, unsteady, radio=RADIOS["wifi"], deadline_ms=120)
    first = report.queues[0]
    assert (first.boundary, first.codec) == (report.chosen.boundary, report.chosen.codec)


def test_break_even_knows_where_nothing_is_feasible() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS), deadline_ms=50)
    first, *rest = report.uplinks
    assert first.boundary is None
    assert all(interval.boundary is not None for interval in rest)
    with pytest.raises(PlanError, match="--deadline-ms"):
        plan_of([EDGE], WORKER, link_of(0.99 * first.high), deadline_ms=50)
    assert plan_of([EDGE], WORKER, link_of(1.01 * first.high), deadline_ms=50).chosen
