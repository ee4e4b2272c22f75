"""The energy of a run, measured or modelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from splitpoint.partition.energy.meter import Clock, EnergyMeter, EnergyReading, no_reading
from splitpoint.partition.energy.power_model import PowerModel


class RunEnergy:
    """Adds up a meter's readings while a run goes on: `read` may be called now and then.

    A power model is told how long the device has computed, `busy_ms` in all, and takes it as idle
    for the rest. A meter is stopped and started again at each reading; the instants between are
    taken to draw what the rest does. Where one reading fails there is no sum: half a run's energy
    would pass for all of it.
    """

    def __init__(
        self,
        meter: EnergyMeter,
        busy_ms: Callable[[], float],
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._meter, self._busy_ms, self._clock = meter, busy_ms, clock
        self._began_s = self._lap_s = 0.0
        self._mj, self._metered_s = 0.0, 0.0
        self.reading = no_reading(meter.name, "the run has not begun")

    def start(self) -> None:
        """The run begins."""
        self._began_s = self._lap_s = self._clock()
        self._meter.start()
        self.reading = EnergyReading(mj=None, kind="none", meter=self._meter.name)

    async def read(self, *, last: bool = False) -> EnergyReading:
        """The energy since `start`; it may take as long as the sensor does."""
        if isinstance(self._meter, PowerModel):
            self.reading = self._modelled(self._meter)
        elif self._meter.kind != "none" and not self.reading.warning:
            # A sensor may be a program that takes a while.
            self.reading = await asyncio.to_thread(self._lap, last)
        elif not self.reading.warning:
            self.reading = self._meter.stop()
        return self.reading

    def _modelled(self, model: PowerModel) -> EnergyReading:
        lasted_ms = 1e3 * (self._clock() - self._began_s)
        busy_ms = min(self._busy_ms(), lasted_ms)
        mj = model.mj(busy_ms, lasted_ms - busy_ms)
        return EnergyReading(mj=mj, kind=model.kind, meter=model.name)

    def _lap(self, last: bool) -> EnergyReading:
        end_s = self._clock()
        found = self._meter.stop()
        if found.mj is None:
            return found
        self._mj += found.mj
        self._metered_s += end_s - self._lap_s
        if not last:
            self._meter.start()
            self._lap_s = self._clock()
        lasted_s = end_s - self._began_s
        mj = self._mj * lasted_s / self._metered_s if self._metered_s else self._mj
        return EnergyReading(mj=mj, kind=found.kind, meter=found.meter)
