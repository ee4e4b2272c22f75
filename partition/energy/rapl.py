"""RAPL: the energy counters of x86 processors, read from the powercap tree of Linux.

Each zone `/sys/class/powercap/intel-rapl:N` has a `name`, a counter `energy_uj` in microjoules
(current kernels let only root read it) and the value `max_energy_range_uj` at which it starts
again from 0. Subzones are `intel-rapl:N:M`. AMD processors appear under the same names.
Source: Linux, Documentation/power/powercap/powercap.rst and ABI/testing/sysfs-class-powercap.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from .meter import (
    FAILURES,
    EnergyError,
    EnergyReading,
    MeterAbsent,
    Read,
    no_reading,
    read_number,
    read_text,
    why,
)
from .sampler import Background, Wait

_ZONES = Path("sys/class/powercap")
# `intel-rapl-mmio:N` is the same package counted a second time, so it does not match.
_ZONE = re.compile(r"intel-rapl:\d+(?::\d+)?")

# 32 bits of 2^-16 J, a common unit, are 65 kJ: more than a minute at a kilowatt.
EVERY_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One counter to add up; it wraps at `range_uj`, 0 where the system does not tell."""

    name: str
    counter: Path
    range_uj: float


class RaplMeter:
    """The energy of the given zones together; a thread reads often enough to see every wrap."""

    def __init__(
        self, zones: tuple[Zone, ...], *, read: Read = read_text, wait: Wait = threading.Event.wait
    ) -> None:
        self.name = "rapl"
        self.kind = "measured"
        self._zones = zones
        self._read = read
        self._background = Background(self._step, wait)
        self._failure = "the meter was not started"
        self._last_uj: list[float] = []
        self._total_uj = 0.0

    def describe(self) -> str:
        """The zones in one line."""
        return f"RAPL {'+'.join(zone.name for zone in self._zones)}, /{_ZONES}"

    def start(self) -> None:
        """Reads the counters and goes on in the background."""
        self._background.halt()
        self._background.join()
        self._total_uj, self._failure = 0.0, ""
        try:
            self._last_uj = [self._counter(zone) for zone in self._zones]
        except FAILURES as error:
            self._failure = why(error)
            return
        self._background.start(EVERY_S)

    def stop(self) -> EnergyReading:
        """The counters' advance since `start`, wraps included."""
        self._background.halt()
        self._background.join()
        failure = self._failure or self._background.failure
        self._failure = "the meter was not started"
        if not failure:
            try:
                self._step()
            except FAILURES as error:
                failure = why(error)
        if failure:
            return no_reading(self.name, failure)
        return EnergyReading(mj=self._total_uj / 1e3, kind=self.kind, meter=self.name)

    def _step(self) -> float:
        for place, zone in enumerate(self._zones):
            now = self._counter(zone)
            advance = now - self._last_uj[place]
            if advance < 0:
                advance += zone.range_uj
            if advance < 0:
                raise ValueError(f"the counter of {zone.name} went backwards")
            self._total_uj += advance
            self._last_uj[place] = now
        return EVERY_S

    def _counter(self, zone: Zone) -> float:
        return read_number(self._read, zone.counter)


def open_rapl(
    root: Path = Path("/"), *, read: Read = read_text, wait: Wait = threading.Event.wait
) -> RaplMeter:
    """The meter of this machine's zones; raises `EnergyError` with the remedy where there is none.

    Counts `psys`, the whole platform, where that counter runs; otherwise every package and its
    `dram`. The subzones core and uncore are parts of their package and not added again.
    """
    folder = root / _ZONES
    named = _names(folder, read)
    psys = [zone for zone, name in named.items() if name == "psys"]
    parts = [
        zone
        for zone, name in named.items()
        if (name.startswith("package") and zone.count(":") == 1) or name == "dram"
    ]
    if not psys and not parts:
        raise MeterAbsent(f"not found (no package in {folder})")
    try:
        # A platform without the wiring for psys shows the zone with a counter that stays at 0.
        psys = [zone for zone in psys if read_number(read, folder / zone / "energy_uj") > 0]
        zones = tuple(
            Zone(
                name=named[zone],
                counter=folder / zone / "energy_uj",
                range_uj=_range_uj(folder / zone, read),
            )
            for zone in psys or parts
        )
        for zone in zones:
            read_number(read, zone.counter)
    except PermissionError as error:
        raise EnergyError(
            "its counters are readable by root only",
            f"sudo chmod a+r {folder}/intel-rapl:*/energy_uj (until the next boot), or run as root",
        ) from error
    except FAILURES as error:
        raise EnergyError(f"cannot be read ({why(error)})") from error
    if not zones:
        raise EnergyError("its only counter, psys, stays at 0")
    return RaplMeter(zones, read=read, wait=wait)


def _names(folder: Path, read: Read) -> dict[str, str]:
    """Zone to name, of the zones that have one."""
    try:
        zones = sorted(entry.name for entry in folder.iterdir() if _ZONE.fullmatch(entry.name))
    except OSError:
        return {}
    named = {}
    for zone in zones:
        try:
            named[zone] = read(folder / zone / "name")
        except FAILURES:
            continue
    return named


def _range_uj(zone: Path, read: Read) -> float:
    try:
        return read_number(read, zone / "max_energy_range_uj")
    except FAILURES:
        return 0.0
