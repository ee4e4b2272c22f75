"""Between the agent and its controller: tells it what frames saw, and does what it decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.answer_times import Answer
from splitpoint.proto.tasks import cancel_and_wait

from ..link.frame_stream import FrameStream
from ..link.workers import Workers
from .controller import CAUTIOUS, Controller
from .observer import Observer

log = logging.getLogger("splitpoint.edge")

DECIDE_EVERY_S = 0.01  # a decision takes a fifth of a millisecond
_NEWEST = 0.1  # weight of the latest gap between two frames of a live source
AFTER_A_DEFECT_S = 60  # without decisions, of which each would fill the log


class Adapter(Observer):
    """Keeps an agent's plan the best one.

    `switch` makes a plan the present one, once its segments and tables are ready; `switched` is
    told of it in one line. While one switch is under way no other is begun.
    """

    def __init__(
        self,
        table: CostTable,
        controller: Controller,
        workers: Workers,
        switch: Callable[[Plan], Awaitable[None]],
        switched: Callable[[str], None],
    ) -> None:
        self._table, self._controller, self._workers = table, controller, workers
        self._switch, self._switched = switch, switched
        self._index = {
            key: index
            for index, key in enumerate(
                zip(table.boundary, table.codec, table.runtime, strict=True)
            )
        }
        self._decided_s = 0.0
        self._taken_s: float | None = None  # a live source's latest frame
        self._task: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._stream: FrameStream | None = None  # that answered last

    @property
    def uplink_mbps(self) -> float | None:
        """The rate that decisions are made for, None before anything was seen of the link."""
        return self._controller.uplink.mbps(time.perf_counter(), CAUTIOUS)

    @property
    def usual_mbps(self) -> float | None:
        """The rate in the middle of what was seen."""
        return self._controller.uplink.mbps(time.perf_counter(), 50)

    def finish_ms(self) -> dict[int, float]:
        """What the device is predicted to take from each boundary to the end.

        Frames are finished in float32 onnxruntime. Empty where the profiles have no times in that:
        those of another runtime say nothing of it.
        """
        table = self._table
        until = {
            int(boundary): float(ms)
            for boundary, ms, name in zip(table.boundary, table.edge_ms, table.runtime, strict=True)
            if name == ONNX
        }
        alone_ms = until.get(int(table.boundary.max()))
        return {} if alone_ms is None else {at: alone_ms - ms for at, ms in until.items()}

    def plan_is(self, plan: Plan) -> None:
        """This is the present plan, whoever has decided that."""
        index = self._index.get((plan.boundary, plan.codec, plan.runtime))
        if index is not None:
            self._controller.current = index

    def frame_computed(self, plan: Plan, ms: float) -> None:
        """The device computed and encoded a sample in `ms`."""
        index = self._index.get((plan.boundary, plan.codec, plan.runtime))
        if index is not None:
            self._controller.computed(index, ms)

    def frame_answered(
        self, plan: Plan, codec: str, answer: Answer, stream: FrameStream, batch: int
    ) -> None:
        """A worker answered a frame, whose codec may be coarser than the plan's."""
        index = self._index.get((plan.boundary, codec, plan.runtime))
        if index is None:
            return
        controller = self._controller
        conditions, known_ms = controller.conditions, controller.conditions.round_trip_ms
        if stream is not self._stream:  # to another worker, or on another way: what it measured
            self._stream, known_ms = stream, stream.session.round_trip_ms
        conditions.round_trip_ms = min(known_ms, stream.session.round_trip_ms)
        controller.answered(
            time.perf_counter(),
            index,
            nbytes=answer.bytes_up,
            left_ms=answer.left_ms,
            queue_ms=answer.queue_ms,
            server_ms=(answer.server_ms - answer.queue_ms) / batch,
        )

    def frame_late(self, nbytes: int, waited_ms: float) -> None:
        """A frame was not answered in time."""
        self._controller.late(time.perf_counter(), nbytes, waited_ms)

    def load_told(self, load: pb.Load) -> None:
        """A worker said how busy it is, or nothing of that."""
        if not load.wait_ms:
            return
        boundaries = int(max(self._table.boundary)) + 1
        waits = list(load.wait_ms[:boundaries])
        waits += [load.queue_ms] * (boundaries - len(waits))
        self._controller.load(time.perf_counter(), waits, load.slowdown or 1.0)

    def device_can_finish(self, predicted_ms: Mapping[int, float] | None) -> None:
        """In these times by boundary; None where it cannot."""
        self._controller.finishes_in_ms = predicted_ms

    def frame_taken(self, now_s: float) -> None:
        """A live source gave a frame: plans must keep up with it."""
        if self._taken_s is not None:
            gap_ms, known = 1e3 * (now_s - self._taken_s), self._controller.interval_ms
            self._controller.interval_ms = (
                gap_ms if known is None else known + _NEWEST * (gap_ms - known)
            )
        self._taken_s = now_s

    def stream_ended(self) -> None:
        """There is nothing to keep up with; the pause before the next is no gap between frames."""
        self._taken_s = self._controller.interval_ms = None

    def frame_ended(self) -> None:
        """Decides, and begins what is due. Call it after each frame; it never raises."""
        now_s = time.perf_counter()
        if now_s - self._decided_s < DECIDE_EVERY_S:
            return
        self._decided_s = now_s
        try:
            self._decide(now_s)
        except Exception:
            log.exception("cannot decide on the plan, which stays for %d s", AFTER_A_DEFECT_S)
            self._decided_s = now_s + AFTER_A_DEFECT_S

    def _decide(self, now_s: float) -> None:
        if self._task is None or self._task.done():
            switch = self._controller.decide(now_s)
            if switch is not None:
                plan = Plan(
                    boundary=int(self._table.boundary[switch.after]),
                    codec=self._table.codec[switch.after],
                    runtime=self._table.runtime[switch.after],
                    why=switch.why,
                )
                self._task = asyncio.create_task(self._go_to(plan, switch.before), name="switch")
        stream = self._workers.stream
        busy = self._probing is not None and not self._probing.done()
        busy = busy or (stream is not None and not stream.session.idle)
        if busy or not self._workers.current.usable:
            return
        nbytes = self._controller.probe_bytes(now_s)
        if nbytes is None:
            return
        if stream is None:
            self._workers.look_for()  # no frame does while all stays on the device
        else:
            self._probing = asyncio.create_task(self._probe(stream, nbytes), name="probe-link")

    async def close(self) -> None:
        """Ends what is under way."""
        await cancel_and_wait(self._task, self._probing)

    async def _go_to(self, plan: Plan, before: int) -> None:
        try:
            await self._switch(plan)
        except Exception as error:
            if isinstance(error, SplitpointError):
                log.warning("cannot switch to boundary %d: %s", plan.boundary, error)
            else:
                log.exception("cannot switch to boundary %d", plan.boundary)
            self._controller.current = before
            return
        self._switched(plan.why)

    async def _probe(self, stream: FrameStream, nbytes: int) -> None:
        begun_s, sizes = time.perf_counter(), [0, nbytes]
        try:
            while sizes:
                padding = sizes.pop(0)
                ms = await stream.probe(padding)
                if stream.session.sent_s > begun_s:
                    return  # a frame shared the link, or shares it still: the time says nothing
                now_s = time.perf_counter()
                self.load_told(stream.session.load)
                self._controller.echoed(now_s, padding, ms)
                more = None if sizes else self._controller.probe_bytes(now_s)
                sizes += [] if more is None else [more]
        except SplitpointError as error:
            log.info("a probe was lost: %s", error)
