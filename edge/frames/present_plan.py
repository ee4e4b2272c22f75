"""The plan that frames begin with: how it is found, made ready, and changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import Plan, name_of
from splitpoint.partition.plan.planner import Report
from splitpoint.proto.status import UnreachableError

from ..dispatch.adapt import Adapter
from ..dispatch.observer import Observer
from ..dispatch.planning import Planning
from ..errors import AgentError
from ..link.channel import WorkerChannel
from ..link.frame_stream import FrameStream
from ..link.workers import Workers
from ..store.prepare import described_now
from .edge_half import EdgeHalf
from .segments import Segments


class PresentPlan:
    """`plan` is that of the next frame. It is loaded before it takes another's place.

    `planning` is what the user asked for, `segments` gives those of a runtime, `encode` is the
    thread that codecs are made ready on; `switched` is told of a change in one line. Once a plan
    was found by measuring, `link` and `report` say how; then `observer` keeps it the best one,
    where the user wants that.
    """

    def __init__(
        self,
        planning: Planning,
        half: EdgeHalf,
        segments: Callable[[str], Segments],
        encode: Executor,
        workers: Workers,
        switched: Callable[[str], None],
    ) -> None:
        self._planning, self._half, self._segments = planning, half, segments
        self._encode, self._workers, self._switched = encode, workers, switched
        self.plan: Plan
        self.observer = Observer()
        self.link: Link | None = None
        self.report: Report | None = None

    @property
    def is_local(self) -> bool:
        """Whether everything runs on the device."""
        return self._is_local(self.plan)

    async def begin(self) -> None:
        """Finds the first plan. Where workers were asked and none answered, one without them."""
        away = self._planning.prepared.away
        if away is None:
            await self._find()
        else:
            await self._take(await self._planning.alone(away))

    async def begin_again(self, files: Sequence[WorkerChannel]) -> None:
        """Plans as at a start, now that a worker is there, which is asked on one of `files`."""
        if self._workers.pick(needed=True) is None:
            raise UnreachableError("the worker has not answered yet")
        prepared = await described_now(self._planning.prepared, files)
        self._planning = replace(self._planning, prepared=prepared)
        await self._find()
        name = name_of(self.plan.boundary, self.plan.codec)
        self._switched(f"{self._workers.current.server} is there: {name} ({self.plan.why})")

    async def switch(self, plan: Plan) -> None:
        """See `EdgeAgent.switch`."""
        if not self._is_local(plan):
            if not self._workers:
                raise AgentError(
                    f"the split at boundary {plan.boundary} needs a worker",
                    "give --server HOST:PORT, or --split local",
                )
            await self._workers.current.connection.live()
        await self._take(plan)

    def new_stream(self, stream: FrameStream) -> None:
        """Hears of the frames on it that were not answered in time."""
        stream.on_late = self._late

    def _late(self, nbytes: int, waited_ms: float) -> None:
        # Asked for then: the first stream is there before the plan that it is measured for.
        self.observer.frame_late(nbytes, waited_ms)

    async def close(self) -> None:
        """Ends what is under way."""
        await self.observer.close()

    async def _find(self) -> None:
        planning = self._planning
        if planning.split != "auto":
            await self.switch(await planning.named())
            return
        if not self._workers:
            await self.switch(planning.local())
            return
        found = await planning.measured(self._workers)
        self.link, self.report = found.link, found.report
        await self.switch(found.report.chosen)
        if planning.adapt:
            controller = found.controller(
                planning.prepared.manifest, planning.auto, planning.budget_ms
            )
            self.observer = Adapter(
                found.table, controller, self._workers, self.switch, self._switched
            )
            self.observer.plan_is(self.plan)

    async def _take(self, plan: Plan) -> None:
        """Makes it the present one, whether or not a worker is there."""
        prepared, loop = self._planning.prepared, asyncio.get_running_loop()
        await prepared.fetch_segments(plan.boundary, plan.runtime)
        segments = self._segments(plan.runtime)
        await loop.run_in_executor(self._planning.device.compute, segments.load, plan.boundary)
        if not self._is_local(plan):
            await prepared.tables(plan.boundary)
            await loop.run_in_executor(self._encode, self._half.prepare, plan)
        self.plan = plan
        self.observer.plan_is(plan)

    def _is_local(self, plan: Plan) -> bool:
        return plan.boundary == len(self._planning.prepared.manifest.segments)
