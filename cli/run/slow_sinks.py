"""The sinks of a run that may take long, each behind a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.edge.sinks.behind import Behind
from splitpoint.edge.sinks.sink import Sink
from splitpoint.edge.sources.source import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowSink:
    """One, made once the model is known; at most so many results wait for it.

    One that `draws` needs the photo of each frame, which may take a hundred megabytes.
    """

    name: str
    make: Callable[[EdgeAgent], Sink]
    most_waiting: int = 64
    draws: bool = False


class SlowSinks:
    """All of them; what became of their results is there after the run, too."""

    def __init__(self, sinks: Sequence[SlowSink]) -> None:
        self._sinks, self._behind = sinks, list[Behind]()

    @property
    def draw(self) -> bool:
        """Whether one of them needs the photos."""
        return any(sink.draws for sink in self._sinks)

    @asynccontextmanager
    async def open(self, agent: EdgeAgent, *, live: bool) -> AsyncIterator[None]:
        """At its end they have all that was given to them, or it counts as lost."""
        async with AsyncExitStack() as stack:
            for sink in self._sinks:
                made = await asyncio.to_thread(sink.make, agent)
                behind = Behind(made, sink.name, live=live, most=sink.most_waiting)
                self._behind.append(behind)
                stack.push_async_callback(behind.end)
            yield

    async def give(self, result: Result) -> None:
        """To each; a frame that was skipped has nothing to tell."""
        if result.outcome is Outcome.SKIPPED:
            return
        plain = _without_photo(result)
        for sink, behind in zip(self._sinks, self._behind, strict=True):
            await behind.give(result if sink.draws else plain)

    def summary(self) -> dict[str, Any]:
        """By name, what became of the results; see `Behind.counts`."""
        return {each.name: each.counts() for each in self._behind}


def _without_photo(result: Result) -> Result:
    """The same, of which many may wait: only who draws needs the photos."""
    origin = result.metadata
    if not isinstance(origin, Origin) or origin.picture is None:
        return result
    return replace(result, metadata=replace(origin, picture=None))
