"""What a bundle's segments draw, from a meter or from a power model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from splitpoint.codec import Array

from ..energy.meter import EnergyMeter
from ..energy.power_model import PowerModel
from ..run.chain import SegmentChain

METERED_S, IDLE_S = 0.5, 1.0


class SegmentEnergy:
    """What the meter said: millijoules a segment, and the board's watts busy and idle."""

    def __init__(self, meter: str) -> None:
        self.mj: list[float] | None = None
        self.kind, self.meter, self.warning = "none", meter, ""
        self.busy_w: float | None = None
        self.idle_w: float | None = None


def measure_energy(
    chain: SegmentChain,
    inputs: Mapping[str, Array],
    meter: EnergyMeter,
    ms: Sequence[float],
    slowdown: float,
) -> SegmentEnergy:
    """What each segment draws; a device that is played by waiting has its energy modelled."""
    found = SegmentEnergy(meter.name)
    if isinstance(meter, PowerModel):
        found.kind, found.busy_w, found.idle_w = meter.kind, meter.busy_w, meter.idle_w
        found.mj = [meter.mj(busy_ms) for busy_ms in ms]
        return found
    if meter.kind == "none":
        return found
    meter.start()
    time.sleep(IDLE_S)
    idle = meter.stop()
    state = chain.place(inputs)
    mj: list[float] = []
    seconds = joules = 0.0
    for index in range(len(chain)):
        runs, start = 0, time.perf_counter()
        meter.start()
        while time.perf_counter() < start + METERED_S:
            outputs = chain.step(index, state)
            chain.wait()
            runs += 1
        seconds += time.perf_counter() - start
        reading = meter.stop()
        if reading.mj is None or idle.mj is None:
            found.warning = reading.warning or idle.warning or f"{meter.name} stopped answering"
            return found
        mj.append(slowdown * reading.mj / runs)
        state |= outputs
        joules += reading.mj / 1e3
    found.kind, found.mj = meter.kind if slowdown == 1 else "modelled", mj
    found.idle_w = idle.mj / 1e3 / IDLE_S if idle.mj is not None else None
    found.busy_w = joules / seconds
    return found
