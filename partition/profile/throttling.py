"""What the system tells of clocks, heat and throttling, since both spoil a measurement.

Sources: Linux, Documentation/admin-guide/pm/cpufreq.rst (kilohertz) and driver-api/thermal/
sysfs-api.rst (thousandths of a degree); the Raspberry Pi documentation of `vcgencmd`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..energy.meter import FAILURES, Read, Run, read_number, read_text, run_command

_CPUS = Path("sys/devices/system/cpu")
_ZONES = Path("sys/class/thermal")
_THROTTLED = ("vcgencmd", "get_throttled")

# The bits of `throttled=0x...`; the same ones 16 places higher say that it has happened at some
# time since the board was switched on.
_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_EARLIER = " since boot"

# A fall below this share of the clock before is told, as is this temperature: boards throttle
# from 80 to 85 degrees Celsius.
_FALLEN = 0.9
_HOT_C = 80.0
# Sensors answer with such figures where they are switched off; PMIC-Die of Jetson Nano and TX2 is
# a constant.
_LOWEST_C, _HIGHEST_C = -40.0, 130.0
_DUMMY_ZONE = "PMIC-Die"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """Clock and heat at one moment; None or empty for what the system does not tell.

    `mhz` is that of the fastest core now, `hottest_c` of all thermal zones. `throttled` names what
    a Raspberry Pi reports, separated by commas, with "since boot" for what has happened at some
    time; it is "none" where all is well.
    """

    mhz: float | None = None
    hottest_c: float | None = None
    throttled: str = ""


def read_clock(
    root: Path = Path("/"), *, run: Run = run_command, read: Read = read_text
) -> ClockState:
    """The state now; never raises. Read it under load, since an idle core clocks itself down."""
    return ClockState(
        mhz=_mhz(root, "scaling_cur_freq", read),
        hottest_c=_hottest_c(root, read),
        throttled=_throttled(run),
    )


def clock_notes(before: ClockState, after: ClockState) -> tuple[str, ...]:
    """What to know about a measurement between the two states, a line each; empty if nothing."""
    notes = []
    if before.mhz is not None and after.mhz is not None and after.mhz < _FALLEN * before.mhz:
        notes.append(f"the clock fell from {before.mhz:.0f} to {after.mhz:.0f} MHz while measuring")
    if after.hottest_c is not None and after.hottest_c >= _HOT_C:
        notes.append(f"{after.hottest_c:.0f} °C at the end")
    old, new = _flags(before), _flags(after)
    for flag in _BITS.values():
        began = bool(old) and flag + _EARLIER in new - old
        if began or flag in old | new:
            notes.append(f"{flag} ({_THROTTLED[0]})")
    return tuple(notes)


def _flags(state: ClockState) -> set[str]:
    return set(state.throttled.split(", ")) if state.throttled else set()


def _numbers(paths: Iterable[Path], read: Read) -> list[float]:
    """The finite numbers in those of the files that can be read."""
    numbers = []
    for path in paths:
        try:
            number = read_number(read, path)
        except FAILURES:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers


def _mhz(root: Path, attribute: str, read: Read) -> float | None:
    paths = (root / _CPUS).glob(f"cpu[0-9]*/cpufreq/{attribute}")
    khz = max(_numbers(paths, read), default=0.0)
    return khz / 1e3 if khz > 0 else None


def _hottest_c(root: Path, read: Read) -> float | None:
    paths = [zone / "temp" for zone in (root / _ZONES).glob("thermal_zone*") if _real(zone, read)]
    degrees = [number / 1e3 for number in _numbers(paths, read)]
    return max((c for c in degrees if _LOWEST_C < c < _HIGHEST_C), default=None)


def _real(zone: Path, read: Read) -> bool:
    try:
        return read(zone / "type") != _DUMMY_ZONE
    except FAILURES:
        return True


def _throttled(run: Run) -> str:
    try:
        match = re.search(r"throttled=(0x[0-9a-fA-F]+)", run(_THROTTLED))
    except FAILURES:
        return ""
    if match is None:
        return ""
    bits = int(match[1], 16)
    now = [name for bit, name in _BITS.items() if bits >> bit & 1]
    over = [name for bit, name in _BITS.items() if bits >> bit + 16 & 1 and name not in now]
    return ", ".join([*now, *(name + _EARLIER for name in over)]) or "none"
