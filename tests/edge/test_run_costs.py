"""What a run would cost in a month, from what it cost in a minute."""

from __future__ import annotations

import math

import pytest
from splitpoint.edge import Outcome, Result
from splitpoint.edge.errors import AgentError
from splitpoint.edge.figures.run_costs import RunCosts, Tariff
from splitpoint.partition.energy.meter import EnergyReading

NONE = EnergyReading(mj=None, kind="none", meter="none")


class Hour:
    """Ten frames a second for an hour, of 5 kB each, of which the worker computes 4 ms."""

    def __init__(self, tariff: Tariff) -> None:
        self.now_s = 0.0
        self.costs = RunCosts(tariff, clock=lambda: self.now_s)
        for number in range(36_000):
            self.now_s = 0.1 * (number + 1)
            self.costs.add(
                Result(
                    id=number, outcome=Outcome.ANSWERED, boundary=1, codec="q8", total_ms=100.0,
                    bytes_up=5000, cloud_compute_ms=4.0,
                )
            )  # fmt: skip


def test_an_hour() -> None:
    hour = Hour(Tariff(price_per_gb=2.0, battery_wh=50.0))
    energy = EnergyReading(mj=3600 * 5e3, kind="measured", meter="made up")  # 5 W
    found = hour.costs.figures(energy)
    assert found["mb_per_hour"] == pytest.approx(180)
    assert found["gb_per_month"] == pytest.approx(129.6)
    assert found["price_per_month"] == pytest.approx(259.2)
    assert found["server_hours_per_month"] == pytest.approx(0.04 * 720)
    assert found["watts"] == pytest.approx(5)
    assert found["battery_hours"] == pytest.approx(10)


def test_what_is_not_known_is_not_said() -> None:
    found = Hour(Tariff()).costs.figures(NONE)
    assert set(found) == {"mb_per_hour", "gb_per_month", "server_hours_per_month"}
    nothing = RunCosts(Tariff())
    assert nothing.figures(NONE) == {}
    nothing.add(Result(id=1, outcome=Outcome.ANSWERED, boundary=0, codec="jpeg", bytes_up=5000,
                       total_ms=5.0))  # fmt: skip
    assert nothing.figures(NONE) == {}  # one frame is no rate


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_a_price_that_is_none(price: float) -> None:
    with pytest.raises(AgentError, match="--price-per-gb"):
        Tariff(price_per_gb=price)


@pytest.mark.parametrize("battery_wh", [0.0, -1.0, math.nan, math.inf])
def test_a_battery_that_is_none(battery_wh: float) -> None:
    with pytest.raises(AgentError, match="--battery-wh"):
        Tariff(battery_wh=battery_wh)
