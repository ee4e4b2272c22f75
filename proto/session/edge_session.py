"""The device's end of an `Infer` stream: ids, credits, budgets, and whose reply it is.

Times are seconds of whatever clock the caller has. What is to be written stands in
`next_message`, what the caller is to know in `events`, and `tick` is due at `due_s`.
"""

from __future__ import annotations

import math
from collections import deque

from .. import splitpoint_pb2 as pb
from ..frames import FrameError, parse_server, reply_crc32
from ..status import (
    FrameCorruptError,
    FrameExpiredError,
    OverloadedError,
    ProtocolError,
    UnreachableError,
    error_of_reply,
)
from .answer_times import AnswerTimes
from .edge_events import Answered, Echoed, Event, Failed, Granted, Reopen, Returned
from .told_load import told_load
from .under_way import FrameUnderWay, Stage, UnderWay

MOST_CREDITS = 64  # whatever a worker grants: frames that are under way are held in memory
# A cancelled frame's credit comes back with the worker's word, or after this and four round trips.
LOST_CREDIT_S = 1.0


def read_welcome(data: bytes, server: str) -> pb.Welcome:
    """The answer to Hello; raises `FrameError` or `ProtocolError` for anything else."""
    message = parse_server(data)
    if message.WhichOneof("kind") != "welcome" or message.welcome.credits < 1:
        raise ProtocolError(f"{server} did not answer Hello with Welcome")
    return message.welcome


class EdgeSession:
    """A stream to `server` from its Welcome, which came at `now_s`, to its loss.

    A frame takes the way `ask`, `Granted`, `budget_ms`, `send`, and ends once: with `Answered`,
    `Failed`, or what `budget_ms` raises, unless its caller gives it up.
    """

    def __init__(self, server: str, welcome: pb.Welcome, now_s: float) -> None:
        self.server, self.welcome = server, welcome
        self.credits = min(welcome.credits, MOST_CREDITS)  # frames unanswered at a time
        self.load = pb.Load()  # what the worker said last of its queue
        self.refused_s = -math.inf  # when it had no room for a frame, if none was answered since
        self.heard_s, self.sent_s = now_s, 0.0  # when anything came last, and a frame went
        self.draining = False
        self.broken: Exception | None = None
        self.times = AnswerTimes()
        self.events: deque[Event] = deque()
        self.due_s = math.inf  # nothing is due before
        self._under_way = UnderWay(self.credits)
        self._probing: set[int] = set()
        self._outbox: deque[bytes | FrameUnderWay] = deque()
        self._last_id, self._index = 0, 1  # Hello was the first message

    @property
    def idle(self) -> bool:
        """Whether no frame is under way."""
        return not len(self._under_way)

    @property
    def bytes_under_way(self) -> int:
        """Of frames that the worker has not answered, whether anybody waits for them or not."""
        return self._under_way.nbytes

    @property
    def round_trip_ms(self) -> float:
        """Of an empty message, the shortest seen."""
        return self.times.round_trip_ms

    @property
    def has_messages(self) -> bool:
        """Whether `next_message` may have something."""
        return bool(self._outbox)

    # What the caller wants. ------------------------------------------------------------------

    def ask(self, budget_ms: float, now_s: float) -> int:
        """The id of a frame that waits for a credit."""
        self._last_id += 1
        frame = FrameUnderWay(self._last_id, now_s + budget_ms / 1e3)
        self._under_way.add(frame)
        self._due(frame, now_s + budget_ms / 1e3)
        self._grant()
        return self._last_id

    def budget_ms(self, frame_id: int, now_s: float) -> int:
        """What the worker is told; raises a `WireError` where the frame is not to be sent."""
        if self.draining:
            raise OverloadedError(f"{self.server} is stopping")
        if self.broken is not None:
            raise self._lost(self.broken)
        frame = self._under_way.get(frame_id)
        left_ms = 0.0 if frame is None else 1e3 * (frame.deadline_s - now_s)
        if left_ms < 1:
            raise FrameExpiredError("the budget ran out before the frame was sent")
        # Of no use is what the worker has ready later than a trip before the end.
        return max(int(left_ms - self.times.round_trip_ms), 1)

    def send(self, frame_id: int, data: bytes, now_s: float) -> None:
        """The frame is built, and on its way from now on."""
        frame = self._under_way.get(frame_id)
        if frame is not None and frame.stage is Stage.GRANTED:
            self._under_way.built(frame, data)
            frame.sent_s = self.sent_s = now_s
            self._due(frame, frame.deadline_s)
            self._outbox.append(frame)
            self._grant()

    def expire(self, frame_id: int, now_s: float) -> None:
        """The frame's time is over before its budget is."""
        frame = self._under_way.get(frame_id)
        if frame is not None and frame.stage is not Stage.UNWANTED:
            self._give_up(frame, now_s)
            self.events.append(Failed(frame_id, FrameExpiredError("no answer within the budget")))

    def give_up(self, frame_id: int, now_s: float) -> None:
        """The caller does not wait for it; without effect once it has its outcome."""
        frame = self._under_way.get(frame_id)
        if frame is not None and frame.stage is not Stage.UNWANTED:
            self._give_up(frame, now_s)

    def probe(self, padding_bytes: int = 0) -> int:
        """The id of a message that the worker echoes."""
        self._last_id += 1
        if self.broken is not None:
            self.events.append(Failed(self._last_id, self._lost(self.broken)))
        else:
            self._probing.add(self._last_id)
            probe = pb.Probe(id=self._last_id, padding=bytes(padding_bytes))
            self._outbox.append(pb.ClientMessage(probe=probe).SerializeToString())
        return self._last_id

    # What happens. ---------------------------------------------------------------------------

    def next_message(self) -> bytes | None:
        """What to write next; None for nothing now.

        A frame that ended before it was sent holds neither memory nor bandwidth.
        """
        while self._outbox:
            message = self._outbox.popleft()
            if isinstance(message, FrameUnderWay):
                if self._under_way.get(message.id) is None:
                    continue
                message = self._under_way.write(message, self._index + 1)
            self._index += 1
            return message
        return None

    def receive(self, data: bytes, now_s: float) -> None:
        """A message came. One that was damaged is skipped: who waits for it runs out of budget."""
        try:
            message = parse_server(data)
        except FrameError:
            return
        kind = message.WhichOneof("kind")
        self.heard_s = now_s
        if kind == "reply":
            self._take_reply(message.reply)
        elif kind == "probe":
            self._hear_load(message.probe.load)
            if message.probe.id in self._probing:
                self._probing.discard(message.probe.id)
                self.events.append(Echoed(message.probe.id))
        elif kind == "draining" and message.draining.reopen:
            self.events.append(Reopen())
        elif kind == "draining":
            self.draining = True

    def tick(self, now_s: float) -> None:
        """Ends what is due: waits for a credit, budgets, and credits that do not come back."""
        for frame in self._under_way.due(now_s):
            if frame.stage is Stage.WAITING:
                self._under_way.forget(frame)
                error = FrameExpiredError("the budget ran out before the link was free")
                self.events.append(Failed(frame.id, error))
            elif frame.stage is Stage.UNWANTED:
                self._forget(frame)
                self.events.append(Returned(frame.id, 1e3 * (now_s - frame.sent_s), False))
            else:
                self.expire(frame.id, now_s)
        self.due_s = self._under_way.due_s

    def lose(self, error: Exception) -> None:
        """The stream has ended: nothing will be answered, and who waits is to hear of it now."""
        lost, self.broken = self._lost(error), self.broken or error
        awaited = [f.id for f in self._under_way.drop_all() if f.stage is not Stage.UNWANTED]
        self.events.extend(Failed(id, lost) for id in (*awaited, *self._probing))
        self._probing.clear()
        self._outbox.clear()

    def _take_reply(self, reply: pb.Reply) -> None:
        # The worker counts messages itself: the index stands even where it could not read the id.
        frame = self._under_way.at(reply.message_index)
        whole = reply_crc32(reply) == reply.crc32
        if whole:
            self._hear_load(reply.load)
            if reply.status == pb.OVERLOADED:
                self.refused_s = self.heard_s
            elif reply.status == pb.OK:
                self.refused_s = -math.inf
        elif frame is None or frame.id != reply.id:
            return  # nobody can say whose it was; its frame runs out of budget
        if frame is None and not reply.message_index:
            frame = self._under_way.get(reply.id)
        if frame is None or frame.stage < Stage.SENT:
            return
        self._forget(frame)
        passed_ms = 1e3 * (self.heard_s - frame.sent_s)
        had_ms = min(reply.times.total_us / 1e3, passed_ms) if whole else passed_ms
        if frame.stage is Stage.UNWANTED:
            self.events.append(Returned(frame.id, had_ms, whole))
            return
        if not whole or (reply.status == pb.OK and reply.id != frame.id):
            error = FrameCorruptError("the reply was damaged on the way")
            self.events += Failed(frame.id, error), Returned(frame.id, passed_ms, False)
        elif reply.status != pb.OK:
            refusal = error_of_reply(reply.status, reply.reason)
            self.events += Failed(frame.id, refusal), Returned(frame.id, had_ms)
        else:
            answer = self.times.answer(reply, frame.sent_s, self.heard_s, frame.nbytes)
            self.events.append(Answered(frame.id, answer))

    def _hear_load(self, load: pb.Load) -> None:
        """A worker that says nothing of its queue is not idle for that."""
        if (told := told_load(load)) is not None:
            self.load = told

    def _grant(self) -> None:
        while (frame := self._under_way.grant()) is not None:
            self.events.append(Granted(frame.id))

    def _forget(self, frame: FrameUnderWay) -> None:
        self._under_way.forget(frame)
        self._grant()

    def _give_up(self, frame: FrameUnderWay, now_s: float) -> None:
        if frame.stage is not Stage.SENT:
            self._forget(frame)
            return
        # The worker's answer to the cancel returns the credit.
        cancel = pb.ClientMessage(cancel=pb.Cancel(id=frame.id))
        self._outbox.append(cancel.SerializeToString())
        frame.stage = Stage.UNWANTED
        self._due(frame, now_s + LOST_CREDIT_S + 4 * self.times.round_trip_ms / 1e3)

    def _due(self, frame: FrameUnderWay, due_s: float) -> None:
        frame.due_s = due_s
        self.due_s = min(self.due_s, due_s)

    def _lost(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"the stream to {self.server} is lost: {error}")
