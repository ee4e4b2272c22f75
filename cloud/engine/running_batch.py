"""What is computed so far of a batch, and whose samples they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from splitpoint.partition.run.chain import State

from ..compute.runner import Runner
from .request import Request


@dataclass(kw_only=True)
class RunningBatch:
    """A batch at a boundary: `state` holds the rows of `aboard`, `joining` are yet to be added."""

    state: State = field(default_factory=dict)
    aboard: list[Request] = field(default_factory=list)
    joining: list[Request] = field(default_factory=list)

    @property
    def requests(self) -> list[Request]:
        """All of them, in the order of their rows."""
        return self.aboard + self.joining

    @property
    def samples(self) -> int:
        """Of all of them."""
        return sum(request.samples for request in self.requests)

    def run(self, runner: Runner, segment: int, room: int) -> RunningBatch:
        """The same batch a segment further, where so many samples fit at a time."""
        states = [self.state] if self.aboard else []
        if self.joining:
            states.append(runner.enter(segment, [request.values for request in self.joining]))
        state = runner.run(segment, runner.join(segment, states), self.samples, room)
        return RunningBatch(state=state, aboard=self.requests)

    def halves(self, runner: Runner, boundary: int) -> tuple[RunningBatch, RunningBatch] | None:
        """Two batches with half the requests each; None for a single one."""
        requests = self.requests
        middle = len(requests) // 2
        if not middle:
            return None
        first, second = RunningBatch(), RunningBatch()
        row = 0
        for number, request in enumerate(requests):
            half = first if number < middle else second
            (half.aboard if number < len(self.aboard) else half.joining).append(request)
        for half in (first, second):
            count = sum(request.samples for request in half.aboard)
            if count:
                half.state = runner.part(boundary, self.state, row, count)
            row += count
        return first, second


def reunited(runner: Runner, boundary: int, parts: list[RunningBatch]) -> RunningBatch:
    """Several parts of a batch as one; without any, a batch of nobody."""
    if not parts:
        return RunningBatch()
    return RunningBatch(
        state=runner.join(boundary, [part.state for part in parts]),
        aboard=[request for part in parts for request in part.aboard],
    )
