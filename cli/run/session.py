"""One run of the edge agent, from its start to its last frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from splitpoint.edge import EdgeAgent, Result
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.sinks.sink import Sink
from splitpoint.edge.sources.source import every_picture, no_picture
from splitpoint.partition.significant import significant
from splitpoint.proto.tasks import cancel_and_wait, within

from ..shell.output import say
from ..shell.stop_signals import Stopped, StopSignals
from ..shell.systemd import Systemd
from .live_table import LiveTable
from .slow_sinks import SlowSinks
from .together import Together

if TYPE_CHECKING:
    from splitpoint.edge.metrics import MetricsSink

REFRESH_S, ENERGY_S = 0.25, 5.0


class Service(Protocol):
    """What asks the agent for others while a run goes on, and shows them what it does."""

    def keeps(self, pixels: int) -> bool:
        """Whether a photo of so many pixels is to stay at its frame, for somebody who looks."""

    def switched(self, why: str) -> None:
        """The plan has changed."""

    def serving(
        self, agent: EdgeAgent, results: AsyncGenerator[Result, None]
    ) -> AbstractAsyncContextManager[AsyncGenerator[Result, None]]:
        """While it is entered, requests are answered: gives `results`, and theirs in between."""

    def close(self) -> None:
        """Ends what was begun before it was entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSession:
    """Feeds an agent from sources and its results to the sinks.

    The table and the metrics are also told what no result tells. The frames of a `service` are
    results like the others.
    """

    agent: EdgeAgent
    sources: Together
    sinks: Sequence[Sink]
    energy: RunEnergy
    table: LiveTable | None
    metrics: MetricsSink | None
    in_flight: int
    slow: SlowSinks
    service: Service | None = None

    async def run(self) -> bool:
        """Until the sources end or the user stops them: whether it was the user.

        Frames that were taken are finished either way, and the sinks are closed.
        """
        systemd = Systemd()
        with StopSignals("stopping: frames under way are finished (again: at once)") as stop:
            async with AsyncExitStack() as stack:
                for sink in self.sinks:
                    stack.callback(sink.close)  # all of them, whichever fails
                stack.push_async_callback(self.sources.close)
                if self.service is not None:
                    stack.callback(self.service.close)
                with suppress(Stopped):
                    await stop.unless_requested(self.sources.open())
                    await stop.unless_requested(stack.enter_async_context(self.agent))
                    slow = self.slow.open(self.agent, live=self.sources.live)
                    await stop.unless_requested(stack.enter_async_context(slow))
                    self._say_plan()
                    self.agent.on_switch = self._switched
                    await stack.enter_async_context(self._followed(systemd))
                    results = self.sources.results(
                        self.agent,
                        stop,
                        keeps=self._keeps,
                        in_flight=self.in_flight,
                    )
                    await stack.enter_async_context(aclosing(results))
                    if self.service is not None:
                        serving = self.service.serving(self.agent, results)
                        results = await stack.enter_async_context(serving)
                    systemd.ready()
                    async for result in results:
                        for sink in self.sinks:
                            sink.add(result)
                        await self.slow.give(result)
                systemd.stopping()
            return stop.requested

    @property
    def _keeps(self) -> Callable[[int], bool]:
        """Which photos stay at their frames."""
        if self.slow.draw:
            return every_picture
        return no_picture if self.service is None else self.service.keeps

    def _say_plan(self) -> None:
        agent = self.agent
        boundary = agent.manifest.boundaries[agent.plan.boundary]
        say(
            f"{agent.manifest.name}: boundary {boundary.id} after {boundary.after or 'the input'}, "
            f"codec {agent.plan.codec}, in {agent.plan.runtime} ({agent.plan.why})"
        )
        if agent.link is not None:
            say(
                f"planned for {significant(agent.link.uplink_mbps)} Mbit/s up, "
                f"{significant(agent.link.round_trip_ms)} ms round trip ({agent.link.source})"
            )

    def _switched(self, why: str) -> None:
        say(why)
        if self.table is not None:
            self.table.switched(why)
        if self.metrics is not None:
            self.metrics.switched()
        if self.service is not None:
            self.service.switched(why)

    @asynccontextmanager
    async def _followed(self, systemd: Systemd) -> AsyncIterator[None]:
        """While it is entered, what changes between results is followed too."""
        ended = asyncio.Event()
        if self.metrics is not None:
            self.metrics.follow(self.agent)
        self.energy.start()
        energy = asyncio.create_task(self._follow_energy(ended))
        others = [asyncio.create_task(systemd.keep_alive())]
        if self.table is not None:
            others.append(asyncio.create_task(self._follow_table(self.table)))
        try:
            yield
        finally:
            ended.set()
            try:
                await energy  # a sensor that is being read is not left in the middle
            finally:
                await cancel_and_wait(*others)

    async def _follow_energy(self, ended: asyncio.Event) -> None:
        while True:
            with suppress(asyncio.TimeoutError):
                await within(ENERGY_S, ended.wait())
            last = ended.is_set()
            reading = await self.energy.read(last=last)
            if self.metrics is not None:
                self.metrics.energy(reading)
            if last:
                return

    async def _follow_table(self, table: LiveTable) -> None:
        while True:
            table.refresh()
            await asyncio.sleep(REFRESH_S)
