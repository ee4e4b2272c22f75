"""Frames a second of a stream that goes one way: what a plan for throughput is judged by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from splitpoint.edge import EdgeAgent, Given
from splitpoint.partition.plan.plan import NO_CODEC, Plan, name_of
from splitpoint.partition.plan.planner import Prediction

# The first frames fill the stages; a slow way is stopped where so many more have told enough.
FILLING, FRAMES, LONGEST_S = 4, 24, 12.0
IN_FLIGHT = 8
BEST_PREDICTED = 6


@dataclass(frozen=True)
class Streamed:
    """One way of a stream, predicted and measured."""

    prediction: Prediction
    fps: float

    @property
    def name(self) -> str:
        return name_of(self.prediction.boundary, self.prediction.codec)


async def streamed(
    agent: EdgeAgent, inputs: Sequence[Mapping[str, np.ndarray]]
) -> tuple[list[Streamed], float]:
    """The chosen way first, then both rivals and the best predicted; and the better rival's rate.

    `agent` has planned for throughput.
    """
    report = agent.report
    assert report is not None
    chosen, *others = report.candidates
    rivals = [
        c for c in report.candidates if c.codec == NO_CODEC or (c.boundary, c.codec) == (0, "jpeg")
    ]
    ways = [chosen, *rivals]
    ways += [c for c in others if c not in ways][: BEST_PREDICTED - 1]
    found: list[Streamed] = []
    for way in ways:
        plan = Plan(boundary=way.boundary, codec=way.codec)
        found.append(Streamed(way, await rate(agent, plan, inputs)))
    return found, max(found[1 + index].fps for index in range(len(rivals)))


async def rate(agent: EdgeAgent, plan: Plan, inputs: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Frames a second once the stages are full."""
    await agent.switch(plan)
    end_s = time.perf_counter() + LONGEST_S

    def frames() -> Iterator[Given]:
        for number in range(FILLING + FRAMES):
            if number > 2 * FILLING and time.perf_counter() > end_s:
                return
            yield Given(inputs=inputs[number % len(inputs)])

    times = []
    async for result in agent.stream(frames(), IN_FLIGHT):
        assert result.outputs, result.error
        times.append(time.perf_counter())
    return (len(times) - FILLING) / (times[-1] - times[FILLING - 1])
