"""The plan that frames begin with: how it is found, made ready, and changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from splitpoint.codec import SplitpointError
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import Plan, name_of
from splitpoint.partition.plan.planner import Report
from splitpoint.proto.status import UnreachableError
from splitpoint.proto.tasks import cancel_and_wait, start_task

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

log = logging.getLogger("splitpoint.edge")


class PresentPlan:
    """`plan` is that of the next frame. It is loaded before it takes another's place.

    `planning` is what the user asked for, `segments` gives those of a runtime, `encode` is the
    thread that codecs are made ready on; `switched` is told of a change in one line. Once a plan
    was found by measuring, `link` and `report` say how; then `observer` chooses for each frame
    anew, where the user wants that, among what is loaded, and the others are loaded one by one.
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
        self._arming: asyncio.Task[None] | None = None
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
        await self._disarm()
        await self._go_to(plan)

    async def _go_to(self, plan: Plan) -> None:
        if not self._is_local(plan):
            if not self._workers:
                raise AgentError(
                    f"the split at boundary {plan.boundary} needs a worker",
                    "give --server HOST:PORT, or --split local",
                )
            await self._workers.current.connection.live()
        await self._take(plan)

    def new_stream(self, stream: FrameStream) -> None:
        """A worker was reached, again or for the first time."""
        self.observer.new_stream(stream)

    async def close(self) -> None:
        """Ends what is under way."""
        try:
            await cancel_and_wait(self._arming)
        finally:
            await self.observer.close()

    async def _find(self) -> None:
        planning = self._planning
        if planning.split != "auto":
            await self._go_to(await planning.named())
            return
        if not self._workers:
            await self._go_to(planning.local())
            return
        found = await planning.measured(self._workers)
        self.link, self.report = found.link, found.report
        await self._go_to(found.report.chosen)
        if planning.adapt:
            dispatcher = found.dispatcher(
                planning.prepared.manifest, planning.auto, planning.budget_ms
            )
            adapter = Adapter(found.table, dispatcher, self._workers, self._switched)
            adapter.ready(self.plan)
            if (stream := self._workers.stream) is not None:
                adapter.new_stream(stream)
            self.observer = adapter
            self._arming = start_task(self._arm(adapter), "load-other-ways", log)

    async def _arm(self, adapter: Adapter) -> None:
        """Makes the other ways ready, those first that need least of the device."""
        for plan in sorted(adapter.plans, key=lambda plan: plan.boundary):
            try:
                await self._make_ready(plan)
            except SplitpointError as error:
                name = name_of(plan.boundary, plan.codec)
                log.warning("no frame takes %s: %s", name, error)
            else:
                adapter.ready(plan)

    async def _disarm(self) -> None:
        """What the user chooses stays."""
        await self.close()
        self.observer = Observer()

    async def _take(self, plan: Plan) -> None:
        """Makes it the present one, whether or not a worker is there."""
        await self._make_ready(plan)
        self.plan = plan

    async def _make_ready(self, plan: Plan) -> None:
        prepared, loop = self._planning.prepared, asyncio.get_running_loop()
        await prepared.fetch_segments(plan.boundary, plan.runtime)
        segments = self._segments(plan.runtime)
        await loop.run_in_executor(self._planning.device.compute, segments.load, plan.boundary)
        if not self._is_local(plan):
            await prepared.fetch_codecs(plan.boundary)
            await loop.run_in_executor(self._encode, self._half.prepare, plan)

    def _is_local(self, plan: Plan) -> bool:
        return plan.boundary == len(self._planning.prepared.manifest.segments)
