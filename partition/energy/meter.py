"""What every energy meter is: its readings, its protocol, and how a sensor may fail.

Energies are millijoules, powers watts, times seconds unless a name says otherwise. A meter that
cannot be opened says so with an `EnergyError`; one that fails later says so in its reading.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from splitpoint.codec import SplitpointError

Clock = Callable[[], float]
Read = Callable[[Path], str]
Run = Callable[[Sequence[str]], str]

# What reading a sensor may raise: it is gone or forbidden, it is garbage, it is out of range.
FAILURES = (OSError, ValueError, ArithmeticError)
_COMMAND_TIMEOUT_S = 2.0


class EnergyError(SplitpointError):
    """An energy meter is unknown or cannot be used here, or a power figure makes no sense."""


class MeterAbsent(EnergyError):
    """This machine is not of the kind that the meter is for, so there is nothing to mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """The energy between a meter's start and stop.

    `kind` is `measured`, `modelled` or `none`; `mj` is None exactly where it is `none`, and
    `warning` then says why. A measured reading may carry a warning too, where it is rough.
    """

    mj: float | None
    kind: str
    meter: str
    warning: str = ""


class EnergyMeter(Protocol):
    """Measures the energy of whatever happens between `start` and `stop`.

    Neither of them raises for a sensor's sake: a reading of kind `none` tells what went wrong.
    """

    @property
    def name(self) -> str:
        """The word that chooses this meter."""

    @property
    def kind(self) -> str:
        """`measured`, `modelled` or `none`: what its readings are at best."""

    def describe(self) -> str:
        """One line: what is measured, and where it is read."""

    def start(self) -> None:
        """Begins anew."""

    def stop(self) -> EnergyReading:
        """The energy since `start`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One meter that was looked for; `detail` says what it measures, or why it cannot be used."""

    name: str
    usable: bool
    detail: str


class NoMeter:
    """The meter of a machine without one: every reading is of kind `none`, with the reason."""

    def __init__(self, reason: str) -> None:
        self.name = "none"
        self.kind = "none"
        self._reason = reason

    def describe(self) -> str:
        """Why there is none."""
        return f"no energy meter: {self._reason}"

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> EnergyReading:
        """No energy, and the reason as the warning."""
        return no_reading(self.name, self._reason)


class Measurement:
    """What `measured` hands out; `reading` is final once its block has ended."""

    def __init__(self, meter: str) -> None:
        self.reading = no_reading(meter, "the measurement has not ended")


@contextmanager
def measured(meter: EnergyMeter) -> Iterator[Measurement]:
    """Starts the meter, stops it when the block ends in any way, and keeps the reading."""
    measurement = Measurement(meter.name)
    meter.start()
    try:
        yield measurement
    finally:
        measurement.reading = meter.stop()


def no_reading(meter: str, reason: str) -> EnergyReading:
    """The reading of a meter that could not measure."""
    return EnergyReading(mj=None, kind="none", meter=meter, warning=f"no energy: {reason}")


def why(error: Exception) -> str:
    """A sensor's failure in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_text(path: Path) -> str:
    """A sysfs attribute without its line end; raises `OSError`."""
    return path.read_text(encoding="utf-8", errors="replace").strip()


def read_number(read: Read, path: Path) -> float:
    """A sysfs attribute that is one number; raises `OSError`, or `ValueError` naming the file."""
    text = read(path)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path} holds {text[:40]!r}, which is no number") from None


def run_command(command: Sequence[str]) -> str:
    """What `command` prints; raises `OSError` where it is missing, fails or takes over 2 s."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not answer in {_COMMAND_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        said = next(iter((done.stderr or done.stdout).strip().splitlines()), "no message")
        raise OSError(f"{command[0]} ended with status {done.returncode} ({said})")
    return done.stdout
