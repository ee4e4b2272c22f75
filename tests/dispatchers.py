"""Dispatchers over measured times, on links that a test makes up."""

from __future__ import annotations

import numpy as np
from measured_table import all_allowed, measured_table
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.dispatch.conditions import Conditions
from splitpoint.edge.dispatch.dispatcher import Dispatcher

ROUND_TRIP_MS = 20.0


def dispatcher_of(
    slowdown: float,
    mbps: float,
    budget_s: float = 0.3,
    prices: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> Dispatcher:
    table = measured_table(slowdown)
    arms = Arms.of(
        table,
        all_allowed(table) if allowed is None else allowed,
        np.zeros(len(table)) if prices is None else prices,
    )
    return Dispatcher(arms, budget_s, Conditions(ROUND_TRIP_MS), 125e3 * mbps)


def names(dispatcher: Dispatcher) -> list[str]:
    table = measured_table()
    return [f"{table.boundary[i]}:{table.codec[i]}" for i in dispatcher.arms.index]


def way(dispatcher: Dispatcher, arm: int | None) -> str:
    return "let go" if arm is None else names(dispatcher)[arm]


def fast_seen(dispatcher: Dispatcher, mbps: float, now_s: float = 0.0) -> None:
    for step in range(30):
        dispatcher.uplink.sent(now_s - 3 + 0.1 * step, 1e4, 1e4 / (125e3 * mbps))
