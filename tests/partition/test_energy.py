"""Energy meters on recorded trees, command outputs and clocks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from splitpoint.partition.energy import meter as meter_module
from splitpoint.partition.energy.find import (
    METERS,
    EnergyError,
    NoMeter,
    PowerModel,
    choose_meter,
    find_meters,
    measured,
)
from splitpoint.partition.energy.ina3221 import open_jetson
from splitpoint.partition.energy.meter import read_text, run_command
from splitpoint.partition.energy.nvml import open_nvml
from splitpoint.partition.energy.pmic import board_watts, open_pmic, rail_watts
from splitpoint.partition.energy.rapl import EVERY_S, open_rapl
from splitpoint.partition.energy.sampler import SampledMeter


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name == "splitpoint-energy"]


class FakeTime:
    """A clock that a meter's background thread turns itself, for `steps` waits.

    After them the thread rests until it is stopped; `rest` returns once it does.
    """

    def __init__(self, steps: int = 0, at_step: Callable[[int], None] | None = None) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._left = steps
        self._at_step = at_step
        self._resting = threading.Event()

    def clock(self) -> float:
        return self.now

    def wait(self, stopped: threading.Event, seconds: float) -> bool:
        if not self._left:
            self._resting.set()
            return stopped.wait(30)
        self._left -= 1
        self.now += seconds
        self.pauses.append(seconds)
        if self._at_step is not None:
            self._at_step(len(self.pauses))
        return False

    def rest(self) -> None:
        assert self._resting.wait(30)


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def no_command(command: Sequence[str]) -> str:
    raise FileNotFoundError(2, "No such file or directory", command[0])


def no_nvml() -> Any:
    raise ImportError("No module named 'pynvml'")


def here(root: Path) -> dict[str, Any]:
    """A machine of nothing but a tree."""
    return {"root": root, "run": no_command, "nvml": no_nvml}


# The sampler.


def test_power_is_integrated_by_trapezoids() -> None:
    time = FakeTime(steps=2)
    watts = {0.0: 2.0, 0.1: 4.0, 0.2: 8.0, 0.25: 6.0}
    meter = SampledMeter(
        "x", "", lambda: watts[round(time.now, 3)], clock=time.clock, wait=time.wait
    )
    meter.start()
    time.rest()
    time.now = 0.25
    reading = meter.stop()
    assert reading.mj == pytest.approx(1e3 * (0.1 * 3 + 0.1 * 6 + 0.05 * 7))
    assert (reading.kind, reading.warning) == ("measured", "")


def test_sampling_takes_no_more_than_a_hundredth_of_the_time() -> None:
    costs = [0.0, 0.0005, 0.004, 0.02]
    time = FakeTime(steps=4)
    left = iter([*costs, 0.0, 0.0])

    def read_w() -> float:
        time.now += next(left)
        return 1.0

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    time.rest()
    meter.stop()
    assert time.pauses == pytest.approx([0.1, 0.1, 0.4, 2.0])


def test_the_sampling_itself_is_not_in_the_energy() -> None:
    time = FakeTime()

    def read_w() -> float:
        time.now += 0.5
        return 10.0

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    time.now += 1.0
    reading = meter.stop()
    assert reading.mj == pytest.approx(10_000)
    assert reading.warning == "rough energy: no sample within the 1000 ms"


def test_a_sample_that_is_still_being_read_at_the_stop_does_not_count() -> None:
    time = FakeTime(steps=1)
    reading, stopping = threading.Event(), threading.Event()

    def clock() -> float:
        if reading.is_set() and threading.current_thread() is threading.main_thread():
            stopping.set()
        return time.now

    def read_w() -> float:
        if threading.current_thread() is threading.main_thread():
            return 10.0
        reading.set()
        assert stopping.wait(30)
        time.now += 5
        return 90.0

    meter = SampledMeter("x", "", read_w, clock=clock, wait=time.wait)
    meter.start()
    assert reading.wait(30)
    assert meter.stop().mj == pytest.approx(0.1 * 10_000)


def test_a_meter_can_be_used_again_and_begins_anew() -> None:
    time = FakeTime()
    meter = SampledMeter("x", "", lambda: 3.0, clock=time.clock, wait=time.wait)
    for seconds in (1.0, 2.0):
        meter.start()
        time.now += seconds
        assert meter.stop().mj == pytest.approx(3e3 * seconds)
    assert meter.stop().warning == "no energy: the meter was not started"
    meter.start()
    meter.start()  # the first one's thread must not go on
    meter.stop()


@pytest.mark.parametrize("watts", [-1.0, float("nan"), float("inf")])
def test_impossible_watts(watts: float) -> None:
    values = iter([1.0, watts])
    meter = SampledMeter("x", "", lambda: next(values), wait=FakeTime().wait)
    meter.start()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert f"{watts} W" in reading.warning


def test_a_sensor_that_fails_between_start_and_stop_but_not_at_them() -> None:
    time = FakeTime(steps=1)
    answers: list[float | Exception] = [1.0, OSError(5, "Input/output error", "/sys/x"), 1.0]

    def read_w() -> float:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    for thread in threading.enumerate():
        if thread.name == "splitpoint-energy":
            thread.join(30)
    assert meter.stop().warning == "no energy: /sys/x: Input/output error"


def test_the_real_thread_samples_and_ends() -> None:
    count = 0
    enough = threading.Event()

    def read_w() -> float:
        nonlocal count
        count += 1
        if count == 3:
            enough.set()
        return 5.0

    meter = SampledMeter("x", "", read_w)
    with measured(meter) as result:
        assert result.reading.kind == "none"
        assert enough.wait(30)
    assert result.reading.kind == "measured"
    assert result.reading.mj is not None
    assert result.reading.mj >= 5.0 * 199


def test_measured_stops_when_its_block_raises() -> None:
    meter = SampledMeter("x", "", lambda: 5.0)
    with pytest.raises(KeyError), measured(meter) as result:
        raise KeyError("x")
    assert result.reading.kind == "measured"


# RAPL.

RAPL = "sys/class/powercap"
RANGE = 262143328850


def rapl(root: Path, **zones: tuple[str, int]) -> Path:
    """Zones given as `z0_1=("dram", 5)`, as they lie side by side in /sys/class/powercap."""
    files: dict[str, object] = {f"{RAPL}/intel-rapl/enabled": 1}
    for zone, (name, energy_uj) in zones.items():
        folder = f"{RAPL}/intel-rapl:{zone[1:].replace('_', ':')}"
        files |= {
            f"{folder}/name": name,
            f"{folder}/energy_uj": energy_uj,
            f"{folder}/max_energy_range_uj": RANGE,
        }
    return tree(root, files)


def advance(root: Path, zone: str, energy_uj: int) -> None:
    (root / RAPL / zone / "energy_uj").write_text(f"{energy_uj}\n")


def test_rapl_adds_package_and_dram_and_nothing_twice(tmp_path: Path) -> None:
    root = rapl(
        tmp_path,
        z0=("package-0", RANGE - 850),
        z0_0=("core", 100),
        z0_1=("uncore", 100),
        z0_2=("dram", 5000),
        z1=("package-1", 0),
    )
    tree(
        root,
        {
            f"{RAPL}/intel-rapl-mmio:0/{k}": v
            for k, v in {"name": "package-0", "energy_uj": 0, "max_energy_range_uj": RANGE}.items()
        },
    )
    meter = choose_meter("rapl", **here(root))
    assert meter.describe() == "RAPL package-0+dram+package-1, /sys/class/powercap"
    with measured(meter) as result:
        advance(root, "intel-rapl:0", 1150)  # round the corner: 850 + 1150
        advance(root, "intel-rapl:0:0", 10**9)
        advance(root, "intel-rapl:0:1", 10**9)
        advance(root, "intel-rapl:0:2", 8000)
        advance(root, "intel-rapl:1", 500)
        advance(root, "intel-rapl-mmio:0", 10**9)
    assert result.reading.mj == pytest.approx(2.0 + 3.0 + 0.5)
    assert (result.reading.kind, result.reading.meter) == ("measured", "rapl")


@pytest.mark.parametrize(("at_first", "zones"), [(700, "psys"), (0, "package-0")])
def test_rapl_psys_replaces_the_rest_where_it_counts(
    tmp_path: Path, at_first: int, zones: str
) -> None:
    root = rapl(tmp_path, z0=("package-0", 100), z1=("psys", at_first))
    assert open_rapl(root).describe() == f"RAPL {zones}, /sys/class/powercap"


def test_rapl_sees_every_wrap_of_a_long_measurement(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    tree(root, {f"{RAPL}/intel-rapl:0/max_energy_range_uj": 1000})
    counts = {1: 400, 2: 300}
    time = FakeTime(steps=2, at_step=lambda step: advance(root, "intel-rapl:0", counts[step]))
    meter = open_rapl(root, wait=time.wait)
    meter.start()
    time.rest()
    advance(root, "intel-rapl:0", 950)
    assert meter.stop().mj == pytest.approx((500 + 900 + 650) / 1e3)
    assert time.pauses == [EVERY_S, EVERY_S]
    assert EVERY_S <= 60


def test_rapl_that_goes_backwards_without_a_range(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    (root / RAPL / "intel-rapl:0/max_energy_range_uj").unlink()
    meter = open_rapl(root)
    meter.start()
    advance(root, "intel-rapl:0", 100)
    assert "package-0 went backwards" in meter.stop().warning


def forbidding(part: str) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        if part in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    return read


def test_rapl_for_root_only(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    machine = here(root) | {"read": forbidding("energy_uj")}
    found = {meter.name: meter for meter in find_meters(**machine)}
    remedy = f"sudo chmod a+r {root}/{RAPL}/intel-rapl:*/energy_uj"
    assert not found["rapl"].usable
    assert remedy in found["rapl"].detail
    with pytest.raises(EnergyError) as caught:
        choose_meter("rapl", **machine)
    assert remedy in caught.value.remedy
    nothing = choose_meter(**machine)
    assert nothing.kind == "none"
    assert remedy in nothing.stop().warning


def test_rapl_forbidden_while_measuring(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    meter = open_rapl(root)
    meter.start()
    (root / RAPL / "intel-rapl:0/energy_uj").unlink()
    (root / RAPL / "intel-rapl:0/energy_uj").mkdir()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert "energy_uj: Is a directory" in reading.warning
    meter.start()
    assert "Is a directory" in meter.stop().warning


@pytest.mark.parametrize("garbage", ["", "n/a", "12 uJ"])
def test_rapl_garbage(tmp_path: Path, garbage: str) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    meter = open_rapl(root)
    meter.start()
    (root / RAPL / "intel-rapl:0/energy_uj").write_text(garbage)
    assert "no number" in meter.stop().warning
    with pytest.raises(EnergyError, match="no number"):
        open_rapl(root)


# Jetson.

HWMON = "sys/class/hwmon"


def ina3221(device: str, *rails: tuple[str, int, int | None]) -> dict[str, object]:
    """A chip with (label, mV, mA) of channels 1, 2, 3, and the sums the driver adds to them."""
    folder = f"{HWMON}/{device}"
    files: dict[str, object] = {
        f"{folder}/name": "ina3221",
        f"{folder}/in7_label": "sum of shunt voltages",
        f"{folder}/in7_input": 9,
        f"{folder}/curr4_input": 9999,
    }
    for channel, (label, millivolts, milliamperes) in enumerate(rails, 1):
        if label:
            files[f"{folder}/in{channel}_label"] = label
        files[f"{folder}/in{channel}_input"] = millivolts
        if milliamperes is not None:
            files[f"{folder}/curr{channel}_input"] = milliamperes
    return files


ORIN_NANO = ina3221(
    "hwmon1", ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)
) | {f"{HWMON}/hwmon0/name": "cpu_thermal"}
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


# Raspberry Pi 5. The sum of V x I is 3.571 W; the last two lines have no current.

PI5 = """\
 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.10000000A
   1V8_SYS_A current(2)=0.20000000A
  DDR_VDD2_A current(3)=0.10000000A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.20000000A
    0V8_SW_A current(6)=0.30000000A
  VDD_CORE_A current(7)=2.00000000A
   3V3_DAC_A current(17)=0.00000000A
   3V3_ADC_A current(18)=0.01000000A
   0V8_AON_A current(16)=0.01000000A
      HDMI_A current(22)=0.02000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
   1V8_SYS_V volt(10)=1.80000000V
  DDR_VDD2_V volt(11)=1.10000000V
  DDR_VDDQ_V volt(12)=0.60000000V
   1V1_SYS_V volt(13)=1.10000000V
    0V8_SW_V volt(14)=0.80000000V
  VDD_CORE_V volt(15)=0.90000000V
   3V3_DAC_V volt(20)=3.30000000V
   3V3_ADC_V volt(21)=3.30000000V
   0V8_AON_V volt(19)=0.80000000V
      HDMI_V volt(23)=5.00000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=3.00000000V
"""


def test_pi5_rails() -> None:
    rails = rail_watts(PI5)
    assert len(rails) == 12
    assert rails["VDD_CORE"] == pytest.approx(1.8)
    assert rails["3V7_WL_SW"] == pytest.approx(0.37)
    assert sum(rails.values()) == pytest.approx(3.571)
    assert board_watts(3.571) == pytest.approx(4.6770521)


def test_pi5_energy() -> None:
    time = FakeTime(steps=2)
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command)
        time.now += 0.01
        return PI5

    meter = open_pmic(run=run, clock=time.clock, wait=time.wait)
    assert "12 rails" in meter.describe()
    meter.start()
    time.rest()
    assert time.pauses == pytest.approx([1.0, 1.0])  # 10 ms each: no faster than once a second
    time.now = 0.02 + 3  # two readings of 10 ms, to find it and to start
    assert meter.stop().mj == pytest.approx(3 * 4677.0521)
    assert set(asked) == {("vcgencmd", "pmic_read_adc")}


def test_pi5_that_loses_a_rail_or_talks_nonsense() -> None:
    answers = iter([PI5, PI5, PI5.replace("HDMI_V", "HDMI_X")])
    meter = open_pmic(run=lambda command: next(answers), wait=FakeTime().wait)
    meter.start()
    assert "no longer gives HDMI" in meter.stop().warning
    answers = iter([PI5, PI5, "what?"])
    meter = open_pmic(run=lambda command: next(answers), wait=FakeTime().wait)
    meter.start()
    assert "gives no VDD_CORE but 'what?'" in meter.stop().warning


def refusing(error: Exception) -> Callable[[Sequence[str]], str]:
    def run(command: Sequence[str]) -> str:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (no_command, "no command vcgencmd"),
        (lambda command: 'error=1 error_msg="Command not registered"', "not a Raspberry Pi 5"),
        (refusing(OSError('status 255 (error_msg="Command not registered")')), "not a Raspberry"),
        (lambda command: PI5.replace("2.00000000A", "2.0.0A"), "not a Raspberry Pi 5"),
        (refusing(OSError("can't open /dev/vcio")), "usermod -aG video"),
    ],
)
def test_pi5_unusable(run: Callable[[Sequence[str]], str], what: str) -> None:
    with pytest.raises(EnergyError) as caught:
        open_pmic(run=run)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


# NVML.


class FakeNvml:
    """NVML of one GPU; an answer that is an exception is raised."""

    class NVMLError(Exception):
        pass

    def __init__(self, energy: Any = None, power: Any = None, init: Any = None) -> None:
        not_supported = self.NVMLError("Not Supported")
        self.energy = [not_supported] if energy is None else energy
        self.power = not_supported if power is None else power
        self.init = init
        self.open = 0

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def nvmlInit(self) -> None:
        self._answer(self.init)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return self._answer(object() if index == 0 else self.NVMLError("Invalid Argument"))

    def nvmlDeviceGetName(self, handle: object) -> bytes:
        return b"NVIDIA H200"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
        return int(self._answer(self.energy.pop(0) if len(self.energy) > 1 else self.energy[0]))

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        return int(self._answer(self.power))


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


# The model.


def test_power_model() -> None:
    time = FakeTime()
    model = PowerModel("board", 1.5, 4.5, "a data sheet", clock=time.clock)
    assert model.mj(10) == 45
    assert model.mj(10, 20) == 45 + 30
    assert model.stop().kind == "none"
    model.start()
    time.now = 0.2
    reading = model.stop()
    assert (reading.mj, reading.kind, reading.meter) == (pytest.approx(900), "modelled", "board")
    assert model.describe() == "power model board: 4.5 W busy, 1.5 W idle (a data sheet)"


@pytest.mark.parametrize(
    "watts", [(-1, 2), (3, 2), (0, 0), (0, float("inf")), (float("nan"), 2), (0, float("nan"))]
)
def test_impossible_power_model(watts: tuple[float, float]) -> None:
    with pytest.raises(EnergyError):
        PowerModel("x", *watts, "")


# Finding and choosing.


def test_nothing_here(tmp_path: Path) -> None:
    found = find_meters(**here(tmp_path))
    assert [meter.name for meter in found] == list(METERS) == ["rapl", "jetson", "pi5", "nvml"]
    assert not any(meter.usable for meter in found)
    assert all(meter.detail.startswith("not found") for meter in found)
    meter = choose_meter(**here(tmp_path))
    with measured(meter) as result:
        pass
    assert (result.reading.mj, result.reading.kind) == (None, "none")
    assert "no power sensor" in result.reading.warning
    model = PowerModel("x", 1, 2, "")
    assert choose_meter(model=model, **here(tmp_path)) is model
    for name in METERS:
        with pytest.raises(EnergyError) as caught:
            choose_meter(name, **here(tmp_path))
        assert "not found" in caught.value.what
        assert caught.value.remedy


def test_everything_here(tmp_path: Path) -> None:
    rapl(tmp_path, z0=("package-0", 900))
    tree(tmp_path, ORIN_NANO)
    model = PowerModel("x", 1, 2, "")
    machine = {"root": tmp_path, "run": lambda command: PI5, "nvml": lambda: FakeNvml([5])}
    assert [meter.name for meter in find_meters(**machine) if meter.usable] == list(METERS)
    assert choose_meter(model=model, **machine).name == "jetson"
    for name in METERS:
        assert choose_meter(name, model=model, **machine).name == name
    assert choose_meter("model", model=model, **machine) is model
    assert isinstance(choose_meter("none", model=model, **machine), NoMeter)


def test_auto_never_takes_the_gpu_for_the_device(tmp_path: Path) -> None:
    machine = here(tmp_path) | {"nvml": lambda: FakeNvml([5])}
    assert choose_meter(**machine).kind == "none"


def test_auto_says_why_the_meter_that_is_there_was_not_used(tmp_path: Path) -> None:
    machine = here(tmp_path) | {"run": refusing(OSError("can't open /dev/vcio"))}
    assert "pi5: can't open /dev/vcio" in choose_meter(**machine).describe()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(EnergyError) as caught:
        choose_meter("wattmeter", **here(tmp_path))
    assert all(name in caught.value.remedy for name in ("auto", "none", "model", *METERS))
    with pytest.raises(EnergyError, match="idle and busy watts"):
        choose_meter("model", **here(tmp_path))


# Commands.


def test_run_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command([sys.executable, "-c", "print('a=1')"]) == "a=1\n"
    with pytest.raises(OSError, match=r"status 3 \(no\)"):
        run_command([sys.executable, "-c", "import sys; print('no\\nmore'); sys.exit(3)"])
    with pytest.raises(FileNotFoundError):
        run_command(["splitpoint-no-such-command"])
    monkeypatch.setattr(meter_module, "_COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError, match="did not answer"):
        run_command([sys.executable, "-c", "import time; time.sleep(30)"])
