"""Uplinks that were never recorded, from a seed: what recorded ones may lack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from splitpoint.partition.plan.link import DEFAULT_ROUND_TRIP_MS, Link

STEP_S = 0.1
RateSteps = Iterator[float]


def generated(seconds: float, seed: int = 1) -> dict[str, Link]:
    """Links by name, of rates that change every `STEP_S`."""
    count = round(seconds / STEP_S)
    found = {}
    for name, make in KINDS.items():
        rates = make(np.random.default_rng([seed, *name.encode()]))
        found[name] = _link(name, list(islice(rates, count)))
    return found


def _link(name: str, rates: list[float]) -> Link:
    return Link(
        name=name,
        uplink_mbps=float(np.mean(rates)),
        round_trip_ms=DEFAULT_ROUND_TRIP_MS,
        source="generated",
        trace=tuple((STEP_S * i, float(rate)) for i, rate in enumerate(rates)),
    )


def _on_off(mbps: float, on_s: float, off_s: float) -> Callable[[np.random.Generator], RateSteps]:
    """A Markov chain: the link carries `mbps`, or nothing."""

    def make(rng: np.random.Generator) -> RateSteps:
        on = True
        while True:
            yield mbps if on else 0.0
            if rng.random() < STEP_S / (on_s if on else off_s):
                on = not on

    return make


def _ramps(low: float, high: float, period_s: float) -> Callable[[np.random.Generator], RateSteps]:
    """From one rate to another and back, as when one drives past a mast."""

    def make(rng: np.random.Generator) -> RateSteps:
        step = 0
        while True:
            share = 0.5 - 0.5 * math.cos(2 * math.pi * step * STEP_S / period_s)
            yield low * (high / low) ** share * math.exp(rng.normal(0, 0.1))
            step += 1

    return make


def _bursts(fast: float, slow: float, every_s: float) -> Callable[[np.random.Generator], RateSteps]:
    """Fast for a second, and slow until the next, as where a provider grants bursts."""

    def make(rng: np.random.Generator) -> RateSteps:
        while True:
            yield from [fast] * round(1 / STEP_S)
            yield from [slow] * round(rng.uniform(0.5, 1.5) * every_s / STEP_S)

    return make


def _fading(
    mbps: float, spread: float, memory_s: float
) -> Callable[[np.random.Generator], RateSteps]:
    """Its logarithm wanders around a mean and forgets where it was within `memory_s`."""

    def make(rng: np.random.Generator) -> RateSteps:
        keep, level = math.exp(-STEP_S / memory_s), 0.0
        while True:
            level = keep * level + math.sqrt(1 - keep * keep) * rng.normal(0, spread)
            yield mbps * math.exp(level)

    return make


def _steady(mbps: float) -> Callable[[np.random.Generator], RateSteps]:
    def make(rng: np.random.Generator) -> RateSteps:
        while True:
            yield mbps * math.exp(rng.normal(0, 0.05))

    return make


KINDS: dict[str, Callable[[np.random.Generator], RateSteps]] = {
    "stalls of a second": _on_off(3.0, 8.0, 1.0),
    "stalls of five seconds": _on_off(6.0, 15.0, 5.0),
    "gaps": _on_off(1.5, 0.6, 0.2),
    "masts, near and far": _ramps(0.2, 10.0, 40.0),
    "slow ramps": _ramps(0.1, 2.0, 60.0),
    "bursts": _bursts(8.0, 0.4, 4.0),
    "short bursts": _bursts(20.0, 0.15, 2.0),
    "slow fading": _fading(1.5, 0.8, 5.0),
    "fast fading": _fading(1.0, 0.6, 0.3),
    "steady": _steady(1.0),
}
"""What makes the rates in Mbit/s of each kind."""
