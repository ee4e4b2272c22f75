"""What the dispatcher makes of an aim other than latency: bytes, energy, and time to spare."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dispatchers import ROUND_TRIP_MS, fast_seen, way
from measured_table import SEGMENTS_MS, all_allowed, measured_table
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.dispatch.auto_plan import AutoPlan, candidates
from splitpoint.edge.dispatch.conditions import Conditions
from splitpoint.edge.dispatch.dispatcher import Dispatcher
from splitpoint.edge.dispatch.first_plan import FirstPlan
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Objective
from splitpoint.partition.profile.cloud_times import CloudTimes


def upload_is_dear(slowdown: float, patience_s: float | None) -> Dispatcher:
    """All on the device sends nothing, and takes `slowdown` times 10 ms; others are sooner."""
    table = measured_table(slowdown)
    arms = Arms.of(table, all_allowed(table), table.nbytes * table.sends)
    some = Dispatcher(arms, 0.3, Conditions(ROUND_TRIP_MS), 125e4, patience_s=patience_s)
    fast_seen(some, 10.0)
    return some


def test_who_can_wait_sends_nothing_for_a_queue_of_frames() -> None:
    """Twenty of them at once keep the device busy for 1.6 s."""
    soon, patient = upload_is_dear(8, None), upload_is_dear(8, 10.0)
    ways = [way(patient, patient.choose_waiting(0.0, number)) for number in range(20)]
    assert set(ways) == {"7:none"}
    assert len({way(soon, soon.choose_waiting(0.0, number)) for number in range(20)}) > 1


def test_what_a_live_frame_costs_counts_for_more_than_how_soon_it_is_there() -> None:
    """The device takes 0.24 of 0.3 s; what sends is there sooner."""
    soon, patient = upload_is_dear(24, None), upload_is_dear(24, 10.0)
    assert way(patient, patient.choose(0.0, 1)) == "7:none"
    assert way(soon, soon.choose(0.0, 1)) != "7:none"


def test_the_first_plan_lets_frames_take_their_time_unless_latency_is_an_aim() -> None:
    """A device that takes a third of a second, and six frames that are taken in at once."""
    table, link = measured_table(32), parse_link("50mbps,20ms")
    for aim, most in (("bytes", 0.0), ("latency", math.inf)):
        auto = AutoPlan(objective=Objective.parse(aim))
        plan = FirstPlan(link, table, cast(Any, None))
        some = plan.dispatcher(manifest_of(len(SEGMENTS_MS)), auto, 10_000.0)
        arms = [some.choose_waiting(0.0, number) for number in range(6)]
        assert some.arms.nbytes[arms].max() <= most
    assert some.arms.nbytes[arms].max() > 0


def test_energy_is_what_frames_add() -> None:
    """The device is on, and draws its idle watts, whichever way they take."""
    bundle: Any = SimpleNamespace(manifest=manifest_of(len(SEGMENTS_MS)))
    power = PowerModel(name="made up", idle_w=2.0, busy_w=5.0, source="")
    codecs = [codec_time(0, "jpeg", 18_875, encode_ms=0.41)]
    cloud = CloudTimes(segment_ms=(1.0,) * len(SEGMENTS_MS))
    table = candidates(
        bundle, AutoPlan(power=power), [profile_of(SEGMENTS_MS, codecs)], cloud, "auto"
    )
    assert not table.wait_w.any()
    here = table.sends == 0
    assert table.energy_mj[here] == pytest.approx((5.0 - 2.0) * sum(SEGMENTS_MS))
    assert table.energy_mj[~here] == pytest.approx((5.0 - 2.0) * 0.41)
