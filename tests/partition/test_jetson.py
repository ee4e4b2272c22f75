"""Power sensors of Jetson boards, on recorded trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_boards import HWMON, ORIN_NANO, FakeTime, forbidding, here, ina3221, tree
from splitpoint.partition.energy.find import (
    EnergyError,
    choose_meter,
)
from splitpoint.partition.energy.ina3221 import open_jetson

pytestmark = pytest.mark.usefixtures("no_thread_left")

XAVIER_NX = ina3221(
    "hwmon4", ("VDD_IN", 4800, 1000), ("VDD_CPU_GPU_CV", 4800, 500), ("VDD_SOC", 4800, 100)
)
NANO = ina3221(
    "hwmon2", ("POM_5V_IN", 5100, 600), ("POM_5V_GPU", 5100, 40), ("POM_5V_CPU", 5100, 200)
)
AGX_ORIN = ina3221(
    "hwmon3", ("VDD_GPU_SOC", 10000, 500), ("VDD_CPU_CV", 10000, 200), ("VIN_SYS_5V0", 5000, 600)
) | ina3221("hwmon4", ("NC", 5000, 7000), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 0, None))
AGX_ORIN_RAILS = "INA3221 VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0+VDDQ_VDD2_1V8AO"
AGX_XAVIER = ina3221(
    "hwmon3", ("GPU", 10000, 100), ("CPU", 10000, 200), ("SOC", 10000, 50)
) | ina3221("hwmon4", ("CV", 10000, 10), ("VDDRQ", 5000, 100), ("SYS5V", 5000, 400))
IGX_CARRIER = ina3221(
    "hwmon5", ("CVB_ATX_12V", 12000, 2000), ("CVB_ATX_3V3", 3300, 50), ("CVB_ATX_5V", 5000, 100)
)
# 6.5 W of the processor, 22 W of the GPU and 4 W of the carrier's 5 V, of 40 W in all.
THOR_MODULE = ina3221(
    "hwmon2",
    ("VDD_GPU", 10000, 2200),
    ("VDD_CPU_SOC_MSS", 10000, 650),
    ("VIN_SYS_5V0", 5000, 800),
)
THOR_INPUT = {
    f"{HWMON}/hwmon3/name": "ina238",
    f"{HWMON}/hwmon3/label": "VIN",
    f"{HWMON}/hwmon3/in0_input": 7,
    f"{HWMON}/hwmon3/in1_input": 20000,
    f"{HWMON}/hwmon3/curr1_input": 2000,
    f"{HWMON}/hwmon3/power1_input": 40_000_000,
}
NANO_JETPACK_4 = {
    f"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{name}": value
    for name, value in {
        "rail_name_0": "POM_5V_IN",
        "in_voltage0_input": 5100,
        "in_current0_input": 600,
        "rail_name_1": "POM_5V_GPU",
        "in_voltage1_input": 5100,
        "in_current1_input": 40,
    }.items()
}


@pytest.mark.parametrize(
    ("files", "watts", "rails"),
    [
        (ORIN_NANO, 6.0, "INA3221 VDD_IN"),
        (THOR_MODULE | THOR_INPUT, 40.0, "INA238 VIN"),
        (XAVIER_NX, 4.8, "INA3221 VDD_IN"),
        (NANO, 3.06, "INA3221 POM_5V_IN"),
        (NANO_JETPACK_4, 3.06, "INA3221 POM_5V_IN"),
        (AGX_ORIN, 5 + 2 + 3 + 0.5, AGX_ORIN_RAILS),
        (
            AGX_ORIN | IGX_CARRIER,
            10.5,
            "INA3221 VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0+VDDQ_VDD2_1V8AO",
        ),
        (AGX_XAVIER, 1 + 2 + 0.5 + 0.1 + 0.5 + 2, "INA3221 GPU+CPU+SOC+CV+VDDRQ+SYS5V"),
    ],
)
def test_jetson_total(tmp_path: Path, files: dict[str, object], watts: float, rails: str) -> None:
    time = FakeTime(steps=3)
    meter = open_jetson(tree(tmp_path, files), clock=time.clock, wait=time.wait)
    assert meter.describe().startswith(f"{rails}, ")
    meter.start()
    time.rest()
    time.now = 0.5
    assert meter.stop().mj == pytest.approx(watts * 500)


def test_jetson_follows_the_load(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN_NANO)
    current = root / HWMON / "hwmon1/curr1_input"
    time = FakeTime(
        steps=1, at_step=lambda step: tree(root, {f"{HWMON}/hwmon1/curr1_input": 2400}) and None
    )
    meter = open_jetson(root, clock=time.clock, wait=time.wait)
    meter.start()
    time.rest()
    time.now = 0.3
    reading = meter.stop()
    assert current.read_text() == "2400\n"
    assert reading.mj == pytest.approx(0.1 * 9000 + 0.2 * 12000)


def test_jetson_without_the_current_of_a_rail(tmp_path: Path) -> None:
    files = dict(AGX_ORIN)
    del files[f"{HWMON}/hwmon4/curr2_input"]
    meter = open_jetson(tree(tmp_path / "agx", files), wait=FakeTime().wait)
    assert "VIN_SYS_5V0 without VDDQ_VDD2_1V8AO, " in meter.describe()
    files = dict(ORIN_NANO)
    del files[f"{HWMON}/hwmon1/curr1_input"]
    with pytest.raises(EnergyError, match=r"VDD_IN cannot be read \(.*curr1_input: No such file"):
        open_jetson(tree(tmp_path / "nano", files))


def test_ina3221_of_another_board(tmp_path: Path) -> None:
    files = ina3221("hwmon1", ("PP5000", 5000, 100), ("", 0, 0), ("PP3300", 3300, 10))
    files |= ina3221("hwmon2", ("NC", 0, 0))
    with pytest.raises(EnergyError, match=r"its rails \(PP5000, PP3300\) are"):
        choose_meter("jetson", **here(tree(tmp_path, files)))


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (THOR_MODULE, "VDD_GPU, VDD_CPU_SOC_MSS, VIN_SYS_5V0"),
        # Of the carrier board of a maker who measures something else with such a chip.
        (
            THOR_MODULE | THOR_INPUT | {f"{HWMON}/hwmon3/label": "FAN"},
            "VDD_GPU, VDD_CPU_SOC_MSS, VIN_SYS_5V0, FAN",
        ),
        (ina3221("hwmon1", ("VIN", 12000, 100)), "VIN"),
        (ina3221("hwmon1", ("VIN_SYS_5V0", 5000, 600), ("CPU", 5000, 1)), "VIN_SYS_5V0, CPU"),
    ],
)
def test_no_board_is_known_by_a_rail_of_its_own_or_two(
    tmp_path: Path, files: dict[str, object], seen: str
) -> None:
    """What is only a part of the board's power is not called measured."""
    root = tree(tmp_path, files)
    with pytest.raises(EnergyError, match=rf"its rails \({seen}\) are of no Jetson module"):
        choose_meter("jetson", **here(root))
    meter = choose_meter("auto", **here(root))
    assert meter.kind == "none"
    assert seen in meter.describe()


def test_jetson_vanishes_while_measuring(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN_NANO)
    meter = open_jetson(root)
    meter.start()
    (root / HWMON / "hwmon1/in1_input").unlink()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert "in1_input: No such file or directory" in reading.warning
    assert "\n" not in reading.warning


def test_jetson_forbidden(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN_NANO)
    with pytest.raises(EnergyError, match="curr1_input may not be read: run as root"):
        open_jetson(root, read=forbidding("curr1_input"))
