"""Which energy meters this machine has, and which one to use.

RAPL, Jetson and Pi 5 meters cover the processor or the board; NVML covers a graphics card alone,
which is not what a device draws, so it is only ever used when asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .ina3221 import open_jetson
from .meter import (
    EnergyError,
    EnergyMeter,
    EnergyReading,
    Found,
    Measurement,
    MeterAbsent,
    NoMeter,
    Read,
    Run,
    measured,
    read_text,
    run_command,
)
from .nvml import LoadNvml, load_pynvml, open_nvml
from .pmic import open_pmic
from .power_model import PowerModel
from .rapl import open_rapl

__all__ = [
    "METERS",
    "EnergyError",
    "EnergyMeter",
    "EnergyReading",
    "Found",
    "Measurement",
    "NoMeter",
    "PowerModel",
    "choose_meter",
    "find_meters",
    "measured",
]

METERS = ("rapl", "jetson", "pi5", "nvml")
# What `auto` tries, the meters of a whole board before that of a processor.
_AUTO = ("jetson", "pi5", "rapl")


def find_meters(
    root: Path = Path("/"),
    *,
    run: Run = run_command,
    read: Read = read_text,
    nvml: LoadNvml = load_pynvml,
) -> list[Found]:
    """Every meter that was looked for, in the order of `METERS`; never raises.

    `root` is where `/sys` is found, `run` runs a command and returns what it prints, `read`
    reads a file, and `nvml` loads `pynvml`.
    """
    found = []
    for name, open_meter in _openers(root, run, read, nvml).items():
        try:
            found.append(Found(name=name, usable=True, detail=open_meter().describe()))
        except EnergyError as error:
            found.append(Found(name=name, usable=False, detail=str(error)))
    return found


def choose_meter(
    name: str = "auto",
    *,
    root: Path = Path("/"),
    run: Run = run_command,
    read: Read = read_text,
    nvml: LoadNvml = load_pynvml,
    model: PowerModel | None = None,
) -> EnergyMeter:
    """The meter called `name`: `auto`, `none`, `model`, or one of `METERS`.

    `auto` is the first usable one of jetson, pi5 and rapl, else the given `model`, else a
    `NoMeter` that says why; it never picks nvml. Raises `EnergyError` for a name that is unknown
    or cannot be used here.
    """
    openers = _openers(root, run, read, nvml)
    if name == "auto":
        return _automatic(openers, model)
    if name == "none":
        return NoMeter("none was asked for")
    if name == "model":
        if model is None:
            raise EnergyError("there is no power model", "give the device's idle and busy watts")
        return model
    if name not in openers:
        raise EnergyError(
            f"unknown energy meter {name!r}", f"use auto, none, model, {', '.join(METERS)}"
        )
    try:
        return openers[name]()
    except EnergyError as error:
        raise EnergyError(
            f"the energy meter {name} cannot be used: {error.what}",
            error.remedy or "see `splitpoint doctor` for those of this machine, or use auto",
        ) from error


def _openers(
    root: Path, run: Run, read: Read, nvml: LoadNvml
) -> dict[str, Callable[[], EnergyMeter]]:
    return {
        "rapl": partial(open_rapl, root, read=read),
        "jetson": partial(open_jetson, root, read=read),
        "pi5": partial(open_pmic, run=run),
        "nvml": partial(open_nvml, load=nvml),
    }


def _automatic(
    openers: dict[str, Callable[[], EnergyMeter]], model: PowerModel | None
) -> EnergyMeter:
    reasons = []
    for name in _AUTO:
        try:
            return openers[name]()
        except MeterAbsent:
            continue
        except EnergyError as error:
            reasons.append(f"{name}: {error}")
    if model is not None:
        return model
    return NoMeter("; ".join(reasons) or "this machine has no power sensor that is known here")
