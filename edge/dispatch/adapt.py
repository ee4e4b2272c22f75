"""Between the agent and its dispatcher: tells it what frames see, and does what it decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
from splitpoint.codec import SplitpointError
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.plan import NO_CODEC, Plan, name_of
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.answer_times import Answer
from splitpoint.proto.session.edge_events import Returned
from splitpoint.proto.session.edge_session import EdgeSession
from splitpoint.proto.tasks import cancel_and_wait, start_task

from ..link.frame_stream import FrameStream
from ..link.workers import Workers
from .arms import finish_ms
from .dispatcher import Dispatcher
from .observer import Observer
from .probing import probe_bytes, probe_is_due
from .regime import Regime

log = logging.getLogger("splitpoint.edge")

MOST_WAIT_MS = 1e6  # that a worker is believed
HERE, LET_GO = "here", "let go"


class Adapter(Observer):
    """Chooses each frame's way. `said` is told of each change of the mix in one line."""

    def __init__(
        self,
        table: CostTable,
        dispatcher: Dispatcher,
        workers: Workers,
        said: Callable[[str], None],
    ) -> None:
        self.decides = True  # until it turns out that it cannot
        self._table, self._dispatcher, self._workers, self._said = table, dispatcher, workers, said
        arms = dispatcher.arms
        self.plans = [
            Plan(
                boundary=int(table.boundary[i]),
                codec=table.codec[i],
                runtime=table.runtime[i],
                why="the best way for this frame",
            )
            for i in arms.index
        ]
        self._boundary, self._sends = table.boundary[arms.index], arms.nbytes > 0
        self._ready = np.zeros(len(arms), bool)
        self._let_go: set[int] = set()
        # By a stream's session, and there by the number that a frame has on it. A session holds no
        # connection: it may be kept until it is known that what was under way on it is no more.
        self._sent: dict[EdgeSession, dict[int, int]] = {}
        self._places = {
            key: index
            for index, key in enumerate(
                zip(table.boundary.tolist(), table.codec, table.runtime, strict=True)
            )
        }
        self._regime = Regime()
        self._stream: FrameStream | None = None  # that answered last
        self._probing: asyncio.Task[None] | None = None
        self._probed_s, self._probes = 0.0, 0

    @property
    def uplink_mbps(self) -> float | None:
        """The rate that decisions are made for; 0 while nothing comes through."""
        return self._uplink_mbps(time.perf_counter())

    def finish_ms(self) -> dict[int, float]:
        """What the device is predicted to take from each boundary to the end."""
        return finish_ms(self._table)

    def ready(self, plan: Plan) -> None:
        """Its segments are loaded and its codec is made ready: frames may take it."""
        for index, known in enumerate(self.plans):
            if (known.boundary, known.codec, known.runtime) == _key(plan):
                self._ready[index] = True

    # What is asked ---------------------------------------------------------------------------

    def way(self, number: int, *, live: bool, samples: int = 1) -> Plan | None:
        """The plan of a frame that is here now.

        None to let it go, as `let_go` then says, or where no way is ready but the named one.
        """
        if not self.decides:
            return None
        try:
            return self._way(time.perf_counter(), number, samples, live=live)
        except Exception:
            log.exception("cannot decide which way frames take: all take the plan as it was")
            self.decides = False
            return None

    def _way(self, now_s: float, number: int, samples: int, *, live: bool) -> Plan | None:
        dispatcher = self._dispatcher
        dispatcher.usable = self._ready & (~self._sends | self._workers.current.usable)
        if not dispatcher.usable.any():
            return None
        choose = dispatcher.choose if live else dispatcher.choose_waiting
        arm = choose(now_s, number, samples)
        if arm is None or not self._sends[arm]:
            self._look_at_link(now_s)
        plan = None if arm is None else self.plans[arm]
        self._regime.took(now_s, _words(plan))
        line = self._regime.change(now_s, self._uplink_mbps(now_s))
        if line is not None:
            self._said(line)
        if arm is None:
            self._let_go.add(number)
        return plan

    def let_go(self, number: int) -> bool:
        """Whether `way` has decided that."""
        gone = number in self._let_go
        self._let_go.discard(number)
        return gone

    def worth_sending(self, number: int) -> bool:
        """Whether a frame that is encoded may still be answered in time."""
        return self._dispatcher.worth_sending(time.perf_counter(), number)

    def worth_finishing(self, number: int) -> bool:
        """Whether the device is to finish a frame that the cloud has not answered yet."""
        return self._dispatcher.worth_finishing(time.perf_counter(), number)

    # What is told ----------------------------------------------------------------------------

    def device_done(self, number: int) -> None:
        """The device is done with what it was to compute of a frame, or has not begun it."""
        self._dispatcher.in_hand.computed(time.perf_counter(), number)

    def frame_computed(self, plan: Plan, ms: float) -> None:
        """The device computed and encoded a sample in `ms`."""
        index = self._index_of(plan, plan.codec)
        if index is not None:
            expected = self._table.edge_ms[index] + self._table.encode_ms[index]
            self._dispatcher.conditions.edge_took(ms, float(expected))

    def frame_sent(self, number: int, nbytes: int, stream: FrameStream, id: int) -> None:
        """A frame's bytes go out on a stream, where it has another number."""
        self._sent.setdefault(stream.session, {})[id] = number
        self._dispatcher.in_hand.send(time.perf_counter(), number, nbytes)

    def frame_answered(
        self, number: int, plan: Plan, codec: str, answer: Answer, stream: FrameStream, batch: int
    ) -> None:
        """A worker answered a frame, whose codec may be coarser than the plan's."""
        self._sent.get(stream.session, {}).pop(answer.reply.id, None)
        now_s, conditions = time.perf_counter(), self._dispatcher.conditions
        known_ms = conditions.round_trip_ms
        if stream is not self._stream:  # to another worker, or on another way: what it measured
            self._stream, known_ms = stream, stream.session.round_trip_ms
        conditions.round_trip_ms = min(known_ms, stream.session.round_trip_ms)
        self._dispatcher.answered(now_s, number, answer.server_ms / 1e3)
        conditions.queued(now_s, answer.queue_ms)
        index = self._index_of(plan, codec)
        if index is not None:
            took_ms = (answer.server_ms - answer.queue_ms) / batch
            conditions.server_took(took_ms, float(self._table.server_ms[index]))

    def finish_begins(self, number: int) -> None:
        """The device finishes a frame."""
        self._dispatcher.finish_begins(time.perf_counter(), number)

    def frame_ended(self, number: int) -> None:
        """A frame has its outcome. It never raises."""
        self._dispatcher.in_hand.end(number)

    def stream_ended(self) -> None:
        """There are no more frames to keep up with."""
        self._dispatcher.stream_ended()

    def new_stream(self, stream: FrameStream) -> None:
        """What was under way on streams that are lost is no more."""
        stream.on_returned = self._returned
        for other in [known for known in self._sent if known.broken is not None]:
            for number in self._sent.pop(other).values():
                self._dispatcher.in_hand.forget(number)

    def load_told(self, load: pb.Load) -> None:
        """A worker said how busy it is, or nothing of that."""
        if not load.wait_ms:
            return
        boundaries = int(max(self._table.boundary)) + 1
        waits = list(load.wait_ms[:boundaries])
        waits += [load.queue_ms] * (boundaries - len(waits))
        said = np.clip(np.nan_to_num(np.asarray(waits, np.float64)), 0.0, MOST_WAIT_MS)
        conditions = self._dispatcher.conditions
        conditions.load(
            time.perf_counter(), said[self._boundary] * self._sends, load.slowdown or 1.0
        )

    def device_can_finish(self, predicted_ms: Mapping[int, float] | None) -> None:
        """In these times by boundary; None where it cannot."""
        self._dispatcher.can_finish = predicted_ms is not None

    async def close(self) -> None:
        """Ends what is under way."""
        await cancel_and_wait(self._probing)

    def _returned(self, stream: FrameStream, frame: Returned) -> None:
        """A frame that was sent is with the worker no longer, and was not answered.

        How long it had it is no time of the link, or a busy worker would look like a slow link. One
        that was given up for lost tells nothing, and makes no old load a new one.
        """
        number = self._sent.get(stream.session, {}).pop(frame.id, None)
        if number is None:
            return
        if frame.told:
            self._dispatcher.answered(time.perf_counter(), number, frame.had_ms / 1e3)
            self.load_told(stream.session.load)
        else:
            self._dispatcher.in_hand.forget(number)

    def _uplink_mbps(self, now_s: float) -> float:
        link = self._workers.current
        return 0.0 if link.away else self._dispatcher.rate(now_s) / 125e3

    def _index_of(self, plan: Plan, codec: str) -> int | None:
        return self._places.get((plan.boundary, codec, plan.runtime))

    def _look_at_link(self, now_s: float) -> None:
        """Probes a link that nothing was seen of lately, while no frame uses it."""
        stream = self._workers.stream
        due = probe_is_due(now_s, self._probed_s, self._dispatcher)
        if not due or not self._workers.current.usable:
            return
        self._probed_s = now_s
        if stream is None:
            self._workers.look_for()  # no frame does while all stays on the device
        elif self._probing is None or self._probing.done():
            self._probing = start_task(self._probe(stream), "probe-link", log)

    async def _probe(self, stream: FrameStream) -> None:
        dispatcher, begun_s = self._dispatcher, time.perf_counter()
        self._probes -= 1
        nbytes = probe_bytes(dispatcher)
        dispatcher.in_hand.send_probe(begun_s, self._probes, nbytes)
        try:
            await stream.probe(nbytes)
            self.load_told(stream.session.load)
            conditions = dispatcher.conditions
            conditions.round_trip_ms = min(conditions.round_trip_ms, stream.session.round_trip_ms)
            dispatcher.answered(time.perf_counter(), self._probes, 0.0)
        except SplitpointError as error:
            log.info("a probe was lost: %s", error)
        finally:
            dispatcher.in_hand.forget(self._probes)


def _words(plan: Plan | None) -> str:
    if plan is None:
        return LET_GO
    return HERE if plan.codec == NO_CODEC else name_of(plan.boundary, plan.codec)


def _key(plan: Plan) -> tuple[int, str, str]:
    return (plan.boundary, plan.codec, plan.runtime)
