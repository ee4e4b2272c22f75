"""The edge agent: the device's half of every frame."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any

from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import Plan
from splitpoint.partition.plan.planner import Report

from .discovery.network import LocalNetwork
from .discovery.over_zeroconf import ZeroconfNetwork
from .errors import AgentError
from .figures.drift import Drift
from .finding import ANYWHERE, check_trust
from .frames.arrivals import Arrivals
from .frames.frame_count import FrameCount
from .given import Given, Inputs
from .link.workers import parse_servers
from .options import AgentOptions
from .result import Outcome, Result
from .session import Session, open_session
from .store.prepare import Prepared
from .succession import Succession, Tenure
from .transport.transport import Connect
from .upgrade import Upgrade

log = logging.getLogger("splitpoint.edge")


class EdgeAgent:
    """Splits a model between this device and a worker.

        async with EdgeAgent("server:7070", split="3") as agent:
            result = await agent.infer({"pixels": pixels})

    `server` is HOST:PORT, several of them with commas or as a list, or None to run all on the
    device from a local `bundle`. With "auto" it is those that announce themselves in the local
    network (extra `mdns`), where the credentials say how they are known. The model is the workers'
    only one, the one called `model`, or that of `bundle`. Everything else is an option: see
    `AgentOptions` for all of them. They are given as `options`, as keywords that override those, or
    both; None leaves one as it is. `connect` takes the place of gRPC, as in
    `connect=FakeWorker(bundle).connect`, and `network` that of mDNS.

    Raises `AgentError`, `PlanError`, or what the wire and the cache raise, on entering; afterwards
    every frame has a `Result`. `on_switch` is told of each change of the plan in one line.
    """

    def __init__(
        self,
        server: str | Sequence[str] | None,
        options: AgentOptions | None = None,
        *,
        connect: Connect | None = None,
        network: LocalNetwork | None = None,
        **keywords: Any,
    ) -> None:
        given = {name: value for name, value in keywords.items() if value is not None}
        self._options = replace(options or AgentOptions(), **given)
        self._connect = connect
        self._network: LocalNetwork | None = None
        self._servers: list[str] = []
        if server == ANYWHERE:
            check_trust(self._options.credentials)
            self._network = network or ZeroconfNetwork()
        else:
            self._servers = _servers(server)
        if not (self._servers or self._network or self._options.bundle):
            raise AgentError("neither a server nor a bundle", "give --server or --bundle")
        self._count = FrameCount()
        self._sessions = Succession()
        self._upgrade = Upgrade(self._sessions, self._opening, self._switched)
        self.on_switch: Callable[[str], None] | None = None

    async def __aenter__(self) -> EdgeAgent:
        """Connects, plans, fetches the segments that the plan needs, and loads them."""
        await self._sessions.follow(self._opening())
        if self._options.bundle is None and not self._options.pin:
            self._upgrade.start()
        return self

    def _opening(
        self, check: Callable[[Prepared], None] = lambda prepared: None
    ) -> AbstractAsyncContextManager[Session]:
        return open_session(
            self._servers,
            self._options,
            self._connect,
            self._count,
            self._switched,
            self._network,
            check,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the streams and the connections, in that order."""
        try:
            await self._upgrade.close()
        finally:
            await self._sessions.close()

    async def switch(self, plan: Plan) -> None:
        """Goes on with another plan, once its segments are here and loaded.

        Frames that are under way end as they began. Raises `AgentError` for a plan that needs a
        worker where there is none.
        """
        await self.session.present.switch(plan)

    async def infer(
        self,
        inputs: Inputs,
        *,
        metadata: Any = None,
        traceparent: str = "",
        computed: Callable[[], None] | None = None,
    ) -> Result:
        """Runs one frame to its outcome. Raises `SpecError` only for inputs that do not fit.

        `computed` is called when this device has computed its part before the split: whoever gives
        many frames at a time lets others have their turn by waiting for it.
        """
        given = Given(inputs=inputs, metadata=metadata, traceparent=traceparent)
        with self._tenure.used() as session:
            return await session.intake.infer(given, computed=computed)

    async def stream(
        self,
        frames: AsyncIterable[Given] | Iterable[Given],
        in_flight: int = 0,
        *,
        live: bool = False,
    ) -> AsyncGenerator[Result, None]:
        """A result for each of `frames`. Edge compute, encoding, link and cloud overlap.

        At most `in_flight` frames are under way, 0 for as many as keep all stages busy. Results
        come in the order of `frames`; from a `live` source, which does not wait, as frames end, the
        newest begins first, and those that could not begin before the next came have expired. A
        frame that has no inputs, or inputs that do not fit, becomes a failed result. Where the
        agent goes on with a newer model, frames that have begun end in the one before.
        """
        arrivals = Arrivals(frames)
        try:
            while not arrivals.ended:
                tenure = self._tenure
                with tenure.used() as session:
                    # One is computed and one encoded while the others are on their way.
                    window = in_flight or session.workers.credits + 2
                    results = session.intake.results(arrivals, window, tenure.over, live=live)
                    async with aclosing(results):
                        async for result in results:
                            yield result
        finally:
            await arrivals.close()

    @property
    def session(self) -> Session:
        """What is at work, or was when the agent was left; `AgentError` before it is entered."""
        return self._tenure.session

    @property
    def _tenure(self) -> Tenure:
        if self._sessions.present is None:
            raise AgentError("the agent is not at work", "enter it: async with EdgeAgent(...)")
        return self._sessions.present

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many frames have ended so."""
        return self._count.outcomes

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of its model."""
        return self.session.prepared.manifest

    @property
    def digest(self) -> str:
        """The bundle's."""
        return self.session.prepared.digest

    @property
    def labels(self) -> list[str]:
        """Of the model's classes, empty where it has none."""
        return self.session.prepared.labels

    @property
    def plan(self) -> Plan:
        """That of the next frame."""
        return self.session.present.plan

    @property
    def link(self) -> Link | None:
        """The link as it was planned for at the start; None where no plan was looked for."""
        return self.session.present.link

    @property
    def report(self) -> Report | None:
        """How the plan was found; None where it was named."""
        return self.session.present.report

    @property
    def is_local(self) -> bool:
        """Whether the plan runs everything on the device."""
        return self.session.present.is_local

    @property
    def can_finish(self) -> bool:
        """Whether all segments are here, so that the device can finish what the cloud does not."""
        return self.session.finish.ready

    async def settled(self) -> None:
        """Until the segments for finishing frames on the device are here, or could not be had."""
        await self.session.finish.wait()

    @property
    def uplink_mbps(self) -> float | None:
        """The uplink's rate that decisions are made for; None where nothing adapts to it.

        0 while nothing comes through.
        """
        return self.session.present.observer.uplink_mbps

    @property
    def drift(self) -> Drift:
        """How far the latest frames are from those that the model was calibrated with."""
        return self.session.drift

    def _switched(self, why: str) -> None:
        log.info("%s", why)
        if self.on_switch is not None:
            self.on_switch(why)


def _servers(server: str | Sequence[str] | None) -> list[str]:
    if server is None:
        return []
    return parse_servers(server if isinstance(server, str) else ",".join(server))
