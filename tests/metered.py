"""A made-up profile, meters that count steps, and what must hold of a measured one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from split_tables import codec_time, profile_of
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.energy.meter import EnergyReading, no_reading
from splitpoint.partition.profile.profile import (
    Profile,
)
from splitpoint.partition.run.onnx_chain import OnnxChain


class CountingMeter:
    """Every reading is `mj` times the runs that its chain made since the start."""

    name, kind = "fake", "measured"

    def __init__(self, mj: Callable[[int], float | None]) -> None:
        self._mj = mj
        self.readings = 0
        self.chain: StepCounter | None = None
        self._from = 0

    def describe(self) -> str:
        return "a fake"

    def start(self) -> None:
        self._from = self.chain.steps if self.chain else 0

    def stop(self) -> EnergyReading:
        runs = (self.chain.steps if self.chain else 0) - self._from
        mj = self._mj(self.readings)
        self.readings += 1
        if mj is None:
            return no_reading(self.name, "the sensor went away")
        return EnergyReading(mj=mj * max(runs, 1), kind="measured", meter=self.name)


class StepCounter(OnnxChain):
    """Counts its steps."""

    def __init__(self, bundle: Bundle, meter: CountingMeter) -> None:
        super().__init__(bundle, 1)
        self.steps = 0
        meter.chain = self

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        self.steps += 1
        return super().step(index, state)


def assert_layers_add_up(profile: Profile, manifest: Manifest) -> None:
    assert [layer.name for layer in profile.layers] == [layer.name for layer in manifest.layers]
    for segment in profile.segments:
        layers = [
            time
            for layer, time in zip(manifest.layers, profile.layers, strict=True)
            if layer.segment == segment.id
        ]
        assert sum(layer.ms for layer in layers) == pytest.approx(segment.ms, rel=1e-6)
        assert all(layer.ms >= 0 for layer in layers)
        if segment.mj is not None:
            assert sum(layer.mj or 0 for layer in layers) == pytest.approx(segment.mj, rel=1e-6)
    assert sum(layer.share for layer in profile.layers) == pytest.approx(1)


MADE_UP = profile_of(
    [10, 20],
    [codec_time(0, "raw", 1000), codec_time(1, "q8", 500, encode_ms=1)],
    mj=[1, 2],
    memory_mb=[5, 6],
    energy_kind="measured",
    busy_w=4.0,
    idle_w=1.0,
    notes=("hot",),
)
