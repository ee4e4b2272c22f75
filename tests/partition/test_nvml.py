"""NVIDIA's counters of a GPU."""

from __future__ import annotations

from typing import Any

import pytest
from energy_boards import FakeNvml, FakeTime, no_nvml
from splitpoint.partition.energy.find import (
    EnergyError,
    measured,
)
from splitpoint.partition.energy.nvml import open_nvml

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_nvml_counter() -> None:
    fake = FakeNvml(energy=[1000, 1500, 4750])
    meter = open_nvml(load=lambda: fake)
    assert meter.describe() == "NVML energy counter of GPU 0 (NVIDIA H200)"
    with measured(meter) as result:
        pass
    assert result.reading.mj == 3250
    assert (result.reading.kind, result.reading.meter) == ("measured", "nvml")
    assert meter.stop().warning == "no energy: the meter was not started"


def test_nvml_power_where_there_is_no_counter() -> None:
    time = FakeTime(steps=2)
    fake = FakeNvml(power=70_500)
    meter = open_nvml(load=lambda: fake, clock=time.clock, wait=time.wait)
    assert "sampled" in meter.describe()
    meter.start()
    time.rest()
    time.now = 2.0
    assert meter.stop().mj == pytest.approx(141_000)


@pytest.mark.parametrize(
    ("energy", "warning"),
    [
        ([1000, 1500, FakeNvml.NVMLError("GPU is lost")], "NVML: GPU is lost"),
        ([1000, FakeNvml.NVMLError("GPU is lost"), 9], "NVML: GPU is lost"),
        ([1000, 1500, 20], "backwards"),
    ],
)
def test_nvml_fails_while_measuring(energy: list[Any], warning: str) -> None:
    meter = open_nvml(load=lambda: FakeNvml(energy=energy))
    meter.start()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert warning in reading.warning


def test_nvml_unusable() -> None:
    jetson = FakeNvml()
    with pytest.raises(EnergyError, match=r"Not Supported.*use the meter jetson"):
        open_nvml(load=lambda: jetson)
    assert jetson.open == 0
    with pytest.raises(EnergyError, match="Driver Not Loaded"):
        open_nvml(load=lambda: FakeNvml(init=FakeNvml.NVMLError("Driver Not Loaded")))
    with pytest.raises(EnergyError, match="Invalid Argument"):
        open_nvml(1, load=lambda: FakeNvml(energy=[1]))
    with pytest.raises(EnergyError, match="pip install nvidia-ml-py"):
        open_nvml(load=no_nvml)
