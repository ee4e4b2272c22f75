"""Boards with energy meters: recorded trees, command outputs and clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitpoint.partition.energy.meter import read_text


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


def forbidding(part: str) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        if part in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    return read


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


def refusing(error: Exception) -> Callable[[Sequence[str]], str]:
    def run(command: Sequence[str]) -> str:
        raise error

    return run


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
