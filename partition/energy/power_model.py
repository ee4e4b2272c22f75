"""Energy worked out from a device's power, for machines that cannot measure it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from .meter import Clock, EnergyError, EnergyReading, no_reading


@dataclass(slots=True)
class PowerModel:
    """A device that draws `busy_w` watts while it computes and `idle_w` while it waits.

    As a meter it takes all time between `start` and `stop` as busy. `source` says where the
    figures are from. Raises `EnergyError` for figures that no device has.
    """

    name: str
    idle_w: float
    busy_w: float
    source: str
    clock: Clock = field(default=time.perf_counter, repr=False, compare=False)
    kind: str = field(default="modelled", init=False)
    _began_s: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.busy_w) and 0 <= self.idle_w <= self.busy_w > 0):
            raise EnergyError(
                f"a power model of {self.idle_w} W idle and {self.busy_w} W busy",
                "give watts with 0 <= idle <= busy, and busy above 0",
            )

    def describe(self) -> str:
        """The model and its source in one line."""
        return f"power model {self.name}: {self.busy_w:g} W busy, {self.idle_w:g} W idle" + (
            f" ({self.source})" if self.source else ""
        )

    def mj(self, busy_ms: float, wait_ms: float = 0) -> float:
        """Millijoules of computing for `busy_ms` and waiting for `wait_ms` (W x ms = mJ)."""
        return self.busy_w * busy_ms + self.idle_w * wait_ms

    def start(self) -> None:
        """Takes the time."""
        self._began_s = self.clock()

    def stop(self) -> EnergyReading:
        """The busy power times the seconds since `start`."""
        end_s = self.clock()
        if self._began_s is None:
            return no_reading(self.name, "the meter was not started")
        mj = self.mj(1e3 * (end_s - self._began_s))
        self._began_s = None
        return EnergyReading(mj=mj, kind=self.kind, meter=self.name)
