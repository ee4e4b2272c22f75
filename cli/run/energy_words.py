"""A run's energy in words."""

from __future__ import annotations

from splitpoint.partition.energy.meter import EnergyReading
from splitpoint.partition.significant import significant


def energy_words(reading: EnergyReading) -> str:
    """Joules of the whole run and where they are from; "" where nobody knows.

    A device that waits for its next frame draws power all the same, and that empties a battery too.
    """
    if reading.mj is None:
        return ""
    joules = significant(reading.mj / 1e3)
    return f"{joules} J, idle time included ({reading.kind}, {reading.meter})"
