"""The power monitors of NVIDIA's Jetson modules: INA3221, and INA238 for the input of Thor's board.

Linux shows each chip as `/sys/class/hwmon/hwmonX` with the `name` ina3221 and up to three channels
N: `inN_label` is the rail, `inN_input` its millivolts, `currN_input` its milliamperes; in4 to in7
are shunt voltages, and there is no `power1_input` (Linux, Documentation/hwmon/ina3221.rst). The
kernel of JetPack 4, the last one for Jetson Nano, has the channels as `rail_name_N`,
`in_voltageN_input` and `in_currentN_input` of an `iio:deviceX` instead.

An INA238 has one channel, with its microwatts in `power1_input` (Linux,
Documentation/hwmon/ina238.rst); what it measures stands in `label`, which the hwmon core takes from
the device tree (Linux, Documentation/ABI/testing/sysfs-class-hwmon).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .meter import FAILURES, Clock, EnergyError, MeterAbsent, Read, read_number, read_text, why
from .sampler import SampledMeter, Wait

_HWMON = Path("sys/class/hwmon")
_IIO = Path("sys/bus/i2c/drivers/ina3221x")

INA3221, INA238 = "INA3221", "INA238"

# The rails that make up a module's total; the first row of which a board has every rail counts. One
# alone, such as the 5 V of the carrier board, is found on several boards, and tells of none.
# Orin Nano, Orin NX, Xavier NX, TX2 and Nano measure their input as one rail that holds all
# others. The AGX modules have no such rail; theirs lie side by side, and leave out the carrier
# board. Thor's carrier board measures its whole input, and its module only parts of it. Sources:
# the device trees tegra234-p3767.dtsi, tegra234-p3701.dtsi and tegra194-p2888.dtsi of Linux for the
# labels; for the totals, NVIDIA's answers in the developer forum, topics 73608 (POM_5V_IN), 200883
# (VDD_IN), 81016 (AGX Xavier: the sum) and 366461 (Thor: the INA238 has the total input), and for
# AGX Orin, where NVIDIA gives no formula, the practice of adding all four. Thor was not at hand:
# pull request 900 of rbonghi/jetson_stats takes its total from VIN, too.
TOTALS = (
    (INA238, ("VIN",)),
    (INA3221, ("VDD_IN",)),
    (INA3221, ("POM_5V_IN",)),
    (INA3221, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")),
    (INA3221, ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One channel of a chip: the product of what is in `inputs` is its power in microwatts.

    They are millivolts and milliamperes, or the microwatts themselves.
    """

    chip: str
    label: str
    inputs: tuple[Path, ...]

    def watts(self, read: Read) -> float:
        """The rail's power now; raises `OSError` or `ValueError`."""
        return math.prod(read_number(read, path) for path in self.inputs) / 1e6


def open_jetson(
    root: Path = Path("/"),
    *,
    read: Read = read_text,
    clock: Clock = time.perf_counter,
    wait: Wait = threading.Event.wait,
) -> SampledMeter:
    """The meter of the module's total; raises `EnergyError` where there is none that adds up."""
    rails: dict[tuple[str, str], Rail] = {}
    for rail in (*_hwmon_rails(root / _HWMON, read), *_iio_rails(root / _IIO, read)):
        rails.setdefault((rail.chip, rail.label), rail)
    if not rails:
        raise MeterAbsent(f"not found (no ina3221 in {root / _HWMON})")
    keys = ([(chip, label) for label in labels] for chip, labels in TOTALS)
    row = next(([rails[key] for key in row] for row in keys if rails.keys() >= set(row)), [])
    if not row:
        seen = ", ".join(label for _, label in rails)
        raise EnergyError(f"its rails ({seen}) are of no Jetson module known here")
    usable, missing, reason = [], [], ""
    for rail in row:
        try:
            rail.watts(read)
            usable.append(rail)
        except PermissionError as error:
            raise EnergyError(
                f"{error.filename or rail.inputs[0]} may not be read", "run as root"
            ) from error
        except FAILURES as error:
            missing.append(rail.label)
            reason = why(error)
    if not usable:
        raise EnergyError(f"{'+'.join(rail.label for rail in row)} cannot be read ({reason})")
    about = f"{row[0].chip} {'+'.join(rail.label for rail in usable)}"
    if missing:
        about += f" without {', '.join(missing)}"
    return SampledMeter(
        "jetson",
        f"{about}, {usable[0].inputs[0].parent}",
        lambda: sum(rail.watts(read) for rail in usable),
        clock=clock,
        wait=wait,
    )


def _hwmon_rails(folder: Path, read: Read) -> Iterator[Rail]:
    for device in sorted(folder.glob("hwmon*")):
        try:
            chip = read(device / "name")
        except FAILURES:
            continue
        if chip == "ina238" and (label := _label(device / "label", read)):
            yield Rail(chip=INA238, label=label, inputs=(device / "power1_input",))
        if chip != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = _label(device / f"in{channel}_label", read)
            if label:
                inputs = device / f"in{channel}_input", device / f"curr{channel}_input"
                yield Rail(chip=INA3221, label=label, inputs=inputs)


def _iio_rails(folder: Path, read: Read) -> Iterator[Rail]:
    for device in sorted(folder.glob("*/iio:device*")):
        for channel in (0, 1, 2):
            label = _label(device / f"rail_name_{channel}", read)
            if label:
                inputs = (
                    device / f"in_voltage{channel}_input",
                    device / f"in_current{channel}_input",
                )
                yield Rail(chip=INA3221, label=label, inputs=inputs)


def _label(path: Path, read: Read) -> str:
    """The rail's name; empty for a channel without one or marked NC, not connected."""
    try:
        label = read(path)
    except FAILURES:
        return ""
    return "" if label == "NC" else label
