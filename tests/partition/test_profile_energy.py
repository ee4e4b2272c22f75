"""Energy in profiles, and devices that are slowed down."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from metered import CountingMeter, StepCounter, assert_layers_add_up
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import (
    synthetic_samples,
)
from splitpoint.partition.energy.meter import EnergyReading, NoMeter
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.profile import measure as measuring
from splitpoint.partition.profile.measure import measure
from splitpoint.partition.profile.profile import (
    Profile,
)
from splitpoint.partition.run.onnx_chain import OnnxChain

pytestmark = pytest.mark.usefixtures("short_metering")


class FakeTime:
    """A clock that goes on by a millisecond with every step of a chain, and by what is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def chain(self, bundle: Bundle) -> OnnxChain:
        clock = self

        class Clocked(OnnxChain):
            def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
                clock.now_s += 1e-3 * next(iter(state.values())).shape[0]  # the batch
                return super().step(index, state)

        return Clocked(bundle, 1)


def slowed(bundle: Bundle, meter: Any, slowdown: float, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Every step takes a millisecond a sample, every encoding and decoding one."""
    ticks = iter(range(1 << 40))
    clock = FakeTime()
    for module in ("profile.measure", "profile.measure_energy", "run.slowdown"):
        monkeypatch.setattr(f"splitpoint.partition.{module}.time", clock)
    monkeypatch.setattr(
        "splitpoint.partition.profile.measure_codecs.time",
        SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3),
    )
    return measure(
        bundle,
        clock.chain(bundle),
        synthetic_samples(bundle.manifest),
        batches=(1, 2),
        meter=meter,
        slowdown=slowdown,
        max_seconds=5,
    )


def test_slowing_down_is_marked(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time is multiplied, and with it the energy; bytes and the board's power are not."""
    power = PowerModel(name="made up", idle_w=1.0, busy_w=4.0, source="")
    plain = slowed(small_bundle, power, 1, monkeypatch)
    slow = slowed(small_bundle, power, 3, monkeypatch)
    assert plain.emulated == ""
    assert "3 times" in slow.emulated
    for before, after in zip(plain.segments, slow.segments, strict=True):
        assert before.ms == pytest.approx(1)
        assert after.ms == pytest.approx(3)
        assert after.p95_ms == pytest.approx(3)
        assert after.spread_ms == pytest.approx(0, abs=1e-9)
        assert after.mj == pytest.approx(4 * 3)
        assert before.batch_ms == {1: pytest.approx(1), 2: pytest.approx(2)}
        assert after.batch_ms == {1: pytest.approx(3), 2: pytest.approx(6)}
    for before, after in zip(plain.codecs, slow.codecs, strict=True):
        assert after.encode_ms == pytest.approx(3 * before.encode_ms)
        assert after.decode_ms == pytest.approx(3 * before.decode_ms)
        assert after.nbytes == before.nbytes
    assert sum(layer.ms for layer in slow.layers) == pytest.approx(slow.total_ms)
    assert (slow.busy_w, slow.idle_w) == (4, 1)


class SteadyMeter:
    """A board of 5 W, by the clock of the test."""

    name, kind = "fake", "measured"

    def __init__(self) -> None:
        self._began_s = 0.0

    def describe(self) -> str:
        return "a fake"

    def start(self) -> None:
        self._began_s = measuring.time.perf_counter()

    def stop(self) -> EnergyReading:
        ms = 1e3 * (measuring.time.perf_counter() - self._began_s)
        return EnergyReading(mj=5 * ms, kind="measured", meter=self.name)


def test_a_slower_device_takes_more_energy(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured or modelled, a segment of three times the time takes three times the energy."""
    for slowdown in (1, 3):
        found = slowed(small_bundle, SteadyMeter(), slowdown, monkeypatch)
        assert [segment.mj for segment in found.segments] == [
            pytest.approx(5 * slowdown, rel=0.05)
        ] * len(found.segments)
        assert found.busy_w == pytest.approx(5, rel=0.05)
        assert found.idle_w == pytest.approx(5, rel=0.05)


def metered(bundle: Bundle, mj: Callable[[int], float | None]) -> Profile:
    meter = CountingMeter(mj)
    return measure(
        bundle,
        StepCounter(bundle, meter),
        synthetic_samples(bundle.manifest),
        meter=meter,
        max_seconds=0.5,
    )


def test_measured_energy_is_a_run_s(small_bundle: Bundle) -> None:
    """The first reading is of idling, then one a segment."""
    found = metered(small_bundle, lambda reading: 2.0 + reading)
    assert found.energy_kind == "measured"
    assert found.energy_meter == "fake"
    assert [segment.mj for segment in found.segments] == [
        pytest.approx(3.0 + index) for index in range(len(found.segments))
    ]
    assert found.idle_w == pytest.approx(2e-3 / 0.01)
    assert found.busy_w is not None
    assert found.busy_w > 0
    assert_layers_add_up(found, small_bundle.manifest)


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_meter_that_dies_leaves_no_energy(small_bundle: Bundle, last: int) -> None:
    """The run goes on, says so, and claims nothing that was not measured to its end."""
    found = metered(small_bundle, lambda reading: 2.0 if reading < last else None)
    assert found.energy_kind == "none"
    assert any("the sensor went away" in note for note in found.notes)
    assert all(segment.mj is None for segment in found.segments)
    assert all(layer.mj is None for layer in found.layers)
    assert found.codecs
    assert (found.busy_w, found.idle_w) == (None, None)


def test_no_meter_is_no_energy(small_bundle: Bundle) -> None:
    found = measure(
        small_bundle,
        OnnxChain(small_bundle, 1),
        synthetic_samples(small_bundle.manifest),
        meter=NoMeter("none here"),
        max_seconds=0.3,
    )
    assert found.energy_kind == "none"
    assert {segment.mj for segment in found.segments} == {None}
    assert (found.busy_w, found.idle_w) == (None, None)
