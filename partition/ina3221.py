"""The INA3221 power monitors of NVIDIA's Jetson modules.

Linux shows each chip as `/sys/class/hwmon/hwmonX` with the `name` ina3221 and up to three channels
N: `inN_label` is the rail, `inN_input` its millivolts, `currN_input` its milliamperes; in4 to in7
are shunt voltages, and there is no `power1_input` (Linux, Documentation/hwmon/ina3221.rst). The
kernel of JetPack 4, the last one for Jetson Nano, has the channels as `rail_name_N`,
`in_voltageN_input` and `in_currentN_input` of an `iio:deviceX` instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .meter import FAILURES, Clock, EnergyError, MeterAbsent, Read, read_number, read_text, why
from .sampler import SampledMeter, Wait

_HWMON = Path("sys/class/hwmon")
_IIO = Path("sys/bus/i2c/drivers/ina3221x")

# The rails that make up a module's total; the first row of which a rail is found counts.
# Orin Nano, Orin NX, Xavier NX, TX2 and Nano measure their input as one rail that holds all
# others. The AGX modules have no such rail; theirs lie side by side, and leave out the carrier
# board. Sources: the device trees tegra234-p3767.dtsi, tegra234-p3701.dtsi and
# tegra194-p2888.dtsi of Linux for the labels; for the totals, NVIDIA's answers in the developer
# forum, topics 73608 (POM_5V_IN), 200883 (VDD_IN) and 81016 (AGX Xavier: the sum), and for AGX
# Orin, where NVIDIA gives no formula, the practice of adding all four.
TOTALS = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One channel: `volts` holds millivolts, `amperes` milliamperes."""

    label: str
    volts: Path
    amperes: Path

    def watts(self, read: Read) -> float:
        """The rail's power now; raises `OSError` or `ValueError`."""
        return read_number(read, self.volts) * read_number(read, self.amperes) / 1e6


def open_jetson(
    root: Path = Path("/"),
    *,
    read: Read = read_text,
    clock: Clock = time.perf_counter,
    wait: Wait = threading.Event.wait,
) -> SampledMeter:
    """The meter of the module's total; raises `EnergyError` where there is none that adds up."""
    rails: dict[str, Rail] = {}
    for rail in (*_hwmon_rails(root / _HWMON, read), *_iio_rails(root / _IIO, read)):
        rails.setdefault(rail.label, rail)
    if not rails:
        raise MeterAbsent(f"not found (no ina3221 in {root / _HWMON})")
    row = next((row for row in TOTALS if any(label in rails for label in row)), ())
    if not row:
        raise EnergyError(f"its rails ({', '.join(rails)}) are of no Jetson module known here")
    usable, missing, reason = [], [], ""
    for label in row:
        try:
            rails[label].watts(read)
            usable.append(rails[label])
        except PermissionError as error:
            raise EnergyError(
                f"{error.filename or rails[label].volts} may not be read", "run as root"
            ) from error
        except KeyError:
            missing.append(label)
        except FAILURES as error:
            missing.append(label)
            reason = why(error)
    if not usable:
        raise EnergyError(f"{'+'.join(row)} cannot be read ({reason})")
    about = f"INA3221 {'+'.join(rail.label for rail in usable)}"
    if missing:
        about += f" without {', '.join(missing)}"
    return SampledMeter(
        "jetson",
        f"{about}, {usable[0].volts.parent}",
        lambda: sum(rail.watts(read) for rail in usable),
        clock=clock,
        wait=wait,
    )


def _hwmon_rails(folder: Path, read: Read) -> Iterator[Rail]:
    for device in sorted(folder.glob("hwmon*")):
        try:
            if read(device / "name") != "ina3221":
                continue
        except FAILURES:
            continue
        for channel in (1, 2, 3):
            label = _label(device / f"in{channel}_label", read)
            if label:
                yield Rail(
                    label=label,
                    volts=device / f"in{channel}_input",
                    amperes=device / f"curr{channel}_input",
                )


def _iio_rails(folder: Path, read: Read) -> Iterator[Rail]:
    for device in sorted(folder.glob("*/iio:device*")):
        for channel in (0, 1, 2):
            label = _label(device / f"rail_name_{channel}", read)
            if label:
                yield Rail(
                    label=label,
                    volts=device / f"in_voltage{channel}_input",
                    amperes=device / f"in_current{channel}_input",
                )


def _label(path: Path, read: Read) -> str:
    """The rail's name; empty for a channel without one or marked NC, not connected."""
    try:
        label = read(path)
    except FAILURES:
        return ""
    return "" if label == "NC" else label
