"""The power management chip of Raspberry Pi 5, read with `vcgencmd pmic_read_adc`.

It prints a line per channel, `VDD_CORE_A current(7)=1.87674000A` or `VDD_CORE_V volt(15)=...V`;
twelve rails have both. EXT5V, the input, and BATT, the clock's battery, have a voltage alone. A
board that does not give both for VDD_CORE is not taken for a Raspberry Pi 5.
"""

from __future__ import annotations

import re
import threading
import time

from .meter import Clock, EnergyError, MeterAbsent, Run, run_command, why
from .sampler import SampledMeter, Wait

COMMAND = ("vcgencmd", "pmic_read_adc")
_LINE = re.compile(
    r"^\s*(?P<rail>\w+)_(?P<what>[AV])\s+(?:current|volt)\(\d+\)=(?P<value>[-+.\deE]+)[AV]\s*$",
    re.MULTILINE,
)
_CORE = "VDD_CORE"

# Watts at the board's input from the sum over the rails: a straight line fitted to a USB-C meter
# at several loads by J. Fikar (github.com/jfikar/RPi5-power; another revision of that text has
# 1.1327 and 0.6444, which is within 2 % of it from 1.5 to 10 W). One board, so no certificate.
SLOPE = 1.1451
OFFSET_W = 0.5879


def rail_watts(text: str) -> dict[str, float]:
    """Watts by rail, of the rails with both a voltage and a current.

    Raises `ValueError` where VDD_CORE, the processor's rail, is not among them.
    """
    values: dict[tuple[str, str], float] = {}
    for match in _LINE.finditer(text):
        values[match["rail"], match["what"]] = float(match["value"])
    rails = {
        rail: amperes * values[rail, "V"]
        for (rail, what), amperes in values.items()
        if what == "A" and (rail, "V") in values
    }
    if _CORE not in rails:
        said = next(iter(text.strip().splitlines()), "nothing")
        raise ValueError(f"{' '.join(COMMAND)} gives no {_CORE} but {said[:60]!r}")
    return rails


def board_watts(rails_w: float) -> float:
    """Watts that the board draws, from the sum over its rails."""
    return SLOPE * rails_w + OFFSET_W


def open_pmic(
    *,
    run: Run = run_command,
    clock: Clock = time.perf_counter,
    wait: Wait = threading.Event.wait,
) -> SampledMeter:
    """The meter of this board; raises `EnergyError` where it is no Raspberry Pi 5."""
    try:
        first = rail_watts(run(COMMAND))
    except FileNotFoundError as error:
        raise MeterAbsent(f"not found (no command {COMMAND[0]})") from error
    except OSError as error:
        if "not registered" in str(error):  # a board whose firmware has no such command
            raise MeterAbsent(f"not a Raspberry Pi 5 ({why(error)})") from error
        raise EnergyError(
            why(error), "add this user to the group video: sudo usermod -aG video $USER"
        ) from error
    except ValueError as error:
        raise MeterAbsent(f"not a Raspberry Pi 5 ({why(error)})") from error

    def read_w() -> float:
        rails = rail_watts(run(COMMAND))
        lost = first.keys() - rails.keys()
        if lost:
            raise ValueError(f"{' '.join(COMMAND)} no longer gives {', '.join(sorted(lost))}")
        return board_watts(sum(rails[rail] for rail in first))

    return SampledMeter(
        "pi5",
        f"PMIC, {len(first)} rails scaled to the board's input, {' '.join(COMMAND)}",
        read_w,
        clock=clock,
        wait=wait,
    )
