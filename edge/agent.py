"""The edge agent: the device's half of every frame."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any

from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.kept_files import default_cache
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import Plan
from splitpoint.partition.plan.planner import Report
from splitpoint.proto.limits import MAX_CREDITS

from .dispatch.auto_plan import AutoPlan
from .given import Given, Inputs
from .link.credentials import Credentials
from .options import Options, servers_of
from .parts import Parts
from .result import Outcome, Result

log = logging.getLogger("splitpoint.edge")

DEFAULT_BUDGET_MS, DEFAULT_CACHE_MB = 10_000.0, 4_000.0


class EdgeAgent:
    """Splits a model between this device and a worker.

        async with EdgeAgent("server:7070", split="3") as agent:
            result = await agent.infer({"pixels": pixels})

    `server` is HOST:PORT, several of them with commas or as a list, or None to run all on the
    device from a local `bundle`. `credentials` are for all of them. The model is the workers' only
    one, the one called `model`, or that of `bundle`. The split `auto` measures this device and the
    link and takes the best plan, as `auto` says; with `adapt` it follows the link, the worker's
    load and the device from then on, and tells `on_switch` of each change in one line. Otherwise
    `split` and `codec` name one. A frame whose payload would exceed `max_frame_bytes` goes in the
    next coarser codec of the plan's kind that was calibrated, and its result names that. `runtime`
    is what runs the segments on this device, one of `RUNTIMES`; auto leaves the choice to the plan,
    and is onnxruntime where `split` names one. `providers` are what onnxruntime computes with.
    `slowdown` stretches edge compute to play a slower device, and is to be reported as emulated.
    What the cloud refuses, loses or does not answer in time, the device finishes from the tensors
    that it still holds, in float32, once all segments are here, unless `finish_locally` says
    otherwise or they need more than `max_edge_mb`; with `hedge` it does not wait for the budget's
    end, but for 95 of 100 answers' time. Of fetched bundles that nobody uses, the oldest go where
    the cache has more than `max_cache_mb`. Raises `AgentError`, `PlanError`, or what the wire and
    the cache raise, on entering; afterwards every frame has a `Result`.
    """

    def __init__(
        self,
        server: str | Sequence[str] | None,
        *,
        bundle: Path | None = None,
        model: str = "",
        split: str = "auto",
        codec: str = "auto",
        auto: AutoPlan | None = None,
        adapt: bool = True,
        cache: Path | None = None,
        max_cache_mb: float = DEFAULT_CACHE_MB,
        runtime: str = "auto",
        providers: Sequence[str] = (),
        threads: int = 0,
        slowdown: float = 1.0,
        budget_ms: float = DEFAULT_BUDGET_MS,
        max_frame_bytes: float = math.inf,
        max_edge_mb: float | None = None,
        finish_locally: bool = True,
        hedge: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        options = Options(
            servers=servers_of(server),
            bundle=bundle,
            model=model,
            split=split,
            codec=codec,
            auto=auto or AutoPlan(),
            adapt=adapt,
            cache=cache or default_cache(),
            max_cache_mb=max_cache_mb,
            runtime=runtime,
            providers=tuple(providers),
            threads=threads,
            slowdown=slowdown,
            budget_ms=budget_ms,
            max_frame_bytes=max_frame_bytes,
            max_edge_mb=max_edge_mb,
            finish_locally=finish_locally,
            hedge=hedge,
            credentials=credentials,
        )
        self._closing = AsyncExitStack()
        self._parts = Parts(options, self._closing, self._switched)
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.on_switch: Callable[[str], None] | None = None
        self.manifest: Manifest
        self.digest: str
        self.labels: list[str] = []

    async def __aenter__(self) -> EdgeAgent:
        """Connects, plans, fetches the segments that the plan needs, and loads them."""
        try:
            await self._parts.begin(self.outcomes)
        except BaseException:
            await self._closing.aclose()
            raise
        prepared = self._parts.prepared
        self.manifest, self.digest = prepared.manifest, prepared.digest
        self.labels = prepared.labels
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the streams and the connections, in that order."""
        await self._closing.aclose()

    async def switch(self, plan: Plan) -> None:
        """Goes on with another plan, once its segments are here and loaded.

        Frames that are under way end as they began. Raises `AgentError` for a plan that needs a
        worker where there is none.
        """
        await self._parts.present.switch(plan)

    async def infer(self, inputs: Inputs, *, metadata: Any = None, traceparent: str = "") -> Result:
        """Runs one frame to its outcome. Raises `SpecError` only for inputs that do not fit."""
        return await self._parts.intake.infer(
            Given(inputs=inputs, metadata=metadata, traceparent=traceparent)
        )

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
        frame that has no inputs, or inputs that do not fit, becomes a failed result.
        """
        credits, workers = 1, self._parts.workers
        if workers is not None:  # one that is not there yet will grant the usual
            credits = MAX_CREDITS if workers.stream is None else workers.stream.credits
        # One is computed and one encoded while the others are on their way.
        results = self._parts.intake.results(frames, in_flight or credits + 2, live=live)
        async with aclosing(results):
            async for result in results:
                yield result

    @property
    def plan(self) -> Plan:
        """That of the next frame."""
        return self._parts.present.plan

    @property
    def link(self) -> Link | None:
        """The link as it was planned for at the start; None where no plan was looked for."""
        return self._parts.present.link

    @property
    def report(self) -> Report | None:
        """How the plan was found; None where it was named."""
        return self._parts.present.report

    @property
    def is_local(self) -> bool:
        """Whether the plan runs everything on the device."""
        return self._parts.present.is_local

    @property
    def can_finish(self) -> bool:
        """Whether all segments are here, so that the device can finish what the cloud does not."""
        finish = self._parts.finish
        return finish is not None and finish.ready

    async def settled(self) -> None:
        """Until the segments for finishing frames on the device are here, or could not be had."""
        if self._parts.finish is not None:
            await self._parts.finish.wait()

    @property
    def uplink_mbps(self) -> float | None:
        """The uplink's rate that decisions are made for; None where nothing adapts to it."""
        adapter = self._parts.present.adapter
        return None if adapter is None else adapter.uplink_mbps

    def _switched(self, why: str) -> None:
        log.info("%s", why)
        if self.on_switch is not None:
            self.on_switch(why)
