"""What a run costs while it goes on: bytes and money, the worker's time, watts and battery."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from splitpoint.partition.energy.meter import Clock, EnergyReading

from ..errors import AgentError
from ..result import Result

HOURS_A_MONTH = 30 * 24


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """What a gigabyte (1e9 bytes) up costs, in any currency, and what a full battery holds.

    None where nobody said. Raises `AgentError` for what is no price and no battery.
    """

    price_per_gb: float | None = None
    battery_wh: float | None = None

    def __post_init__(self) -> None:
        price, battery_wh = self.price_per_gb, self.battery_wh
        if price is not None and not 0 <= price < math.inf:
            raise AgentError(f"--price-per-gb {price:g} is no price", "give 0 or more")
        if battery_wh is not None and not 0 < battery_wh < math.inf:
            raise AgentError(f"--battery-wh {battery_wh:g} is no battery", "give more than 0")


class RunCosts:
    """A sink that knows how long the run has gone on and what it took of link and worker."""

    def __init__(self, tariff: Tariff, *, clock: Clock = time.perf_counter) -> None:
        self._tariff, self._clock = tariff, clock
        self._frames, self._began_s = 0, math.inf
        self._ended_s = 0.0
        self._bytes_up, self._server_ms = 0, 0.0

    def add(self, result: Result) -> None:
        """Counts one frame, which began `total_ms` ago."""
        self._frames += 1
        self._ended_s = self._clock()
        if self._frames == 1:
            self._began_s = self._ended_s - result.total_ms / 1e3
        self._bytes_up += result.bytes_up
        self._server_ms += result.cloud_compute_ms

    def close(self) -> None:
        """The sums stay."""

    def figures(self, energy: EnergyReading) -> dict[str, Any]:
        """At the rate of this run; empty before its second frame, without energy where none is.

        Bytes and the worker's time are measured, watts and hours of battery as `energy_kind` says.
        """
        lasted_s = self._ended_s - self._began_s
        if self._frames < 2 or lasted_s <= 0:
            return {}
        mb_an_hour = self._bytes_up / 1e6 / lasted_s * 3600
        gb_a_month = mb_an_hour / 1e3 * HOURS_A_MONTH
        found: dict[str, Any] = {
            "mb_per_hour": round(mb_an_hour, 3),
            "gb_per_month": round(gb_a_month, 3),
            "server_hours_per_month": round(self._server_ms / 1e3 / lasted_s * HOURS_A_MONTH, 3),
        }
        if self._tariff.price_per_gb is not None:
            found["price_per_month"] = round(gb_a_month * self._tariff.price_per_gb, 2)
        if energy.mj is not None:
            watts = energy.mj / 1e3 / lasted_s
            found["watts"] = round(watts, 3)
            if self._tariff.battery_wh is not None and watts > 0:
                found["battery_hours"] = round(self._tariff.battery_wh / watts, 2)
        return found
