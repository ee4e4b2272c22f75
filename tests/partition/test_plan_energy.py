"""Energy of a plan: measured, modelled, or unknown."""

from __future__ import annotations

import numpy as np
import pytest
from plans import EDGE, MBPS, WORKER, link_of, one, plan_of, table_of
from split_tables import (
    codec_time,
    profile_of,
)
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.energy.radio import Radio
from splitpoint.partition.errors import PlanError


def test_energy_by_hand() -> None:
    """Segments, encoding at busy power, waiting at idle power; then the radio."""
    report = plan_of([EDGE], WORKER, link_of(MBPS))
    assert one(report, 3, "none").energy_mj == pytest.approx(50 + 90 + 200)
    split = one(report, 1, "q8")
    waiting_ms = 5 + 20 + 0.5 + 0.5 + 6
    assert split.energy_mj == pytest.approx(50 + 5 * 1 + 2 * waiting_ms)
    radio = Radio(name="made up", up_mw_per_mbps=100, base_mw=1000, source="")
    with_radio = plan_of([EDGE], WORKER, link_of(MBPS), radio=radio)
    # (100 mW per Mbit/s x 8 Mbit/s + 1000 mW) x 5 ms
    assert one(with_radio, 1, "q8").energy_mj == pytest.approx(split.energy_mj + 1.8 * 5)
    assert one(with_radio, 3, "none").energy_mj == pytest.approx(340)


def test_only_what_was_measured_is_called_measured() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS))
    for c in report.candidates:
        assert c.energy_kind == ("measured" if c.codec == "none" else "modelled")


def test_modelled_energy_is_never_called_measured() -> None:
    edge = profile_of(
        [10, 20], [codec_time(1, "q8", 900)], mj=[1, 2], energy_kind="modelled", busy_w=5.0,
        idle_w=1.0,
    )  # fmt: skip
    report = plan_of([edge], profile_of([1, 2]), link_of(MBPS))
    assert {c.energy_kind for c in report.candidates} == {"modelled"}


def test_unknown_energy() -> None:
    edge = profile_of([10, 20], [codec_time(1, "q8", 900, encode_ms=1)])
    report = plan_of([edge], profile_of([1, 2]), link_of(MBPS))
    for c in report.candidates:
        assert c.energy_mj is None
        assert c.energy_kind == "none"
    for objective in ("energy", "latency=1,energy=0.1"):
        with pytest.raises(PlanError, match="energy of the device is not known") as caught:
            plan_of([edge], profile_of([1, 2]), link_of(MBPS), objective)
        assert "--energy auto" in str(caught.value)
        assert "--power-model" in str(caught.value)


def test_energy_while_waiting_may_alone_be_unknown() -> None:
    edge = profile_of(
        [10, 20], [codec_time(1, "q8", 900)], mj=[40, 80], energy_kind="measured", busy_w=4.0
    )
    report = plan_of([edge], profile_of([1, 2]), link_of(MBPS))
    local, split = one(report, 2, "none"), one(report, 1, "q8")
    assert (local.energy_mj, local.energy_kind) == (120, "measured")
    assert (split.energy_mj, split.energy_kind) == (None, "none")
    with pytest.raises(PlanError, match="energy of the device is not known"):
        plan_of([edge], profile_of([1, 2]), link_of(MBPS), "energy")


POWER = PowerModel(name="made up", idle_w=1.0, busy_w=4.0, source="")


def test_a_power_model_stands_in_for_a_meter() -> None:
    edge = profile_of([10, 20], [codec_time(1, "q8", 900, encode_ms=3)])
    report = plan_of([edge], profile_of([1, 2]), link_of(MBPS), "energy", power=POWER)
    assert {c.energy_kind for c in report.candidates} == {"modelled"}
    assert one(report, 2, "none").energy_mj == pytest.approx(4 * 30)
    assert one(report, 1, "q8").energy_mj == pytest.approx(4 * 13 + 1 * (1 + 20.5 + 2))
    assert report.chosen.boundary == 1  # 75.5 mJ; all on the device it would be 120


def test_above_idle_is_what_a_run_can_save() -> None:
    """A run is on from its first frame to its last: its idle watts are spent whatever is chosen."""
    edge = profile_of(
        [10, 20, 40], [codec_time(0, "jpeg", 900, encode_ms=3), codec_time(1, "q8", 500)]
    )
    table = table_of([edge], profile_of([30, 30, 30]), power=POWER)
    conditions = {"round_trip_ms": 50.0, "queue_ms": 5.0, "server_factor": 1.0}
    every_ms, upload_ms = 100.0, table.nbytes / 100
    busy_ms = table.edge_ms + table.encode_ms
    spent = [POWER.mj(float(ms), every_ms - float(ms)) for ms in busy_ms]
    added = table.above_idle().metrics(upload_ms, **conditions).energy_mj
    assert added + POWER.idle_w * every_ms == pytest.approx(np.array(spent))
    # A frame alone is charged with the watts while it is away: that would be another choice.
    alone = table.metrics(upload_ms, **conditions).energy_mj
    assert added.argmin() != alone.argmin()


def test_above_idle_is_unknown_where_idling_is_and_never_less_than_nothing() -> None:
    codecs = [codec_time(0, "raw", 900)]
    unknown = profile_of([10, 20], codecs, mj=[40, 80], energy_kind="measured", busy_w=4.0)
    table = table_of([unknown], profile_of([1, 2])).above_idle()
    assert np.isnan((table.energy_mj + table.wait_w)[table.sends > 0]).all()
    odd = profile_of([10, 20], codecs, mj=[4, 8], energy_kind="measured", busy_w=4.0, idle_w=2.0)
    assert (table_of([odd], profile_of([1, 2])).above_idle().energy_mj >= 0).all()


def test_a_power_model_does_not_replace_measurements() -> None:
    with_model = plan_of([EDGE], WORKER, link_of(MBPS), power=POWER)
    assert one(with_model, 3, "none").energy_mj == pytest.approx(340)
    assert one(with_model, 3, "none").energy_kind == "measured"


def test_the_objective_decides() -> None:
    """A slow worker behind a fast link: sending saves the device's energy, not time."""
    edge = profile_of(
        [10, 20], [codec_time(0, "raw", 900)], mj=[50, 100], energy_kind="measured", busy_w=5.0,
        idle_w=1.0,
    )  # fmt: skip
    worker = profile_of([30, 30])
    assert plan_of([edge], worker, link_of(MBPS), "latency").chosen.boundary == 2
    assert plan_of([edge], worker, link_of(MBPS), "energy").chosen.boundary == 0
    assert plan_of([edge], worker, link_of(MBPS), "latency=100,energy=1").chosen.boundary == 2
    assert plan_of([edge], worker, link_of(MBPS), "latency=1,energy=100").chosen.boundary == 0
