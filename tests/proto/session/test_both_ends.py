"""A device's and a worker's session, joined by pipes that keep the order and damage messages.

Frames are given up, expire, are refused and come back damaged, replies are lost, the worker stops,
the stream breaks. Whatever happens in whatever order: each frame ends once, no more of them are
under way than the worker granted, all credits come back, and nothing is left.
"""

from __future__ import annotations

import math
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, build_frame, frame_crc32, parse_server
from splitpoint.proto.session.edge_events import Answered, Failed, Granted
from splitpoint.proto.session.edge_session import LOST_CREDIT_S, EdgeSession
from splitpoint.proto.session.unread import Unread
from splitpoint.proto.session.worker_session import WorkerSession
from splitpoint.proto.status import UnreachableError, WireError

CREDITS = 3
TENSORS = [pb.Tensor(dtype=1, shape=[1, 2], payload=b"12345678")]
GIVEN_UP = "given up"

Damage = st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(1, 255)))
Which = st.integers(0, 10)


def damaged(message: bytes, damage: tuple[int, int] | None) -> bytes:
    """With one byte changed, if it has so many."""
    if damage is None or damage[0] >= len(message):
        return message
    changed = bytearray(message)
    changed[damage[0]] ^= damage[1]
    return bytes(changed)


class BothEnds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.unread = Unread()
        self.edge = EdgeSession("worker:7070", pb.Welcome(credits=CREDITS), self.now_s)
        self.worker = WorkerSession(
            self.unread, idle_s=1e9, max_age_s=20.0, move_s=5.0, now_s=self.now_s
        )
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.outcomes: dict[int, object] = {}  # None while a frame has none
        self.granted: list[int] = []  # to be built
        self.built = 0  # the latest
        self.holding: set[int] = set()  # frames that were granted a credit and have no outcome
        self.computing: list[tuple[int, int]] = []  # indices and ids at the worker
        self.probes: set[int] = set()

    # The device. -------------------------------------------------------------------------

    @rule(budget_ms=st.sampled_from([3.0, 20.0, 80.0, 5000.0]))
    def ask(self, budget_ms: float) -> None:
        frame_id = self.edge.ask(budget_ms, self.now_s)
        assert frame_id not in self.outcomes
        self.outcomes[frame_id] = None
        self.listen()

    @precondition(lambda self: self.granted)
    @rule(which=Which)
    def build(self, which: int) -> None:
        frame_id = self.granted.pop(which % len(self.granted))
        if self.outcomes[frame_id] is not None:
            return
        try:
            budget_ms = self.edge.budget_ms(frame_id, self.now_s)
        except WireError as error:
            self.ends(frame_id, error)
            self.edge.give_up(frame_id, self.now_s)
        else:
            assert budget_ms >= 1
            assert frame_id > self.built, "a frame that was sent before one asked earlier"
            self.built = frame_id
            data = build_frame(
                id=frame_id, boundary=0, codec="raw", tensors=TENSORS, budget_ms=budget_ms
            )
            self.edge.send(frame_id, data, self.now_s)
        self.listen()

    @precondition(lambda self: self.outcomes)
    @rule(which=Which)
    def give_up(self, which: int) -> None:
        frame_id = list(self.outcomes)[-1 - which % len(self.outcomes)]
        if self.outcomes[frame_id] is None:
            self.ends(frame_id, GIVEN_UP)
        self.edge.give_up(frame_id, self.now_s)  # of no effect on one that has ended
        self.listen()

    @precondition(lambda self: self.outcomes)
    @rule(which=Which)
    def expire(self, which: int) -> None:
        self.edge.expire(list(self.outcomes)[-1 - which % len(self.outcomes)], self.now_s)
        self.listen()

    @rule()
    def probe(self) -> None:
        self.probes.add(self.edge.probe())
        self.listen()

    @rule(damage=Damage)
    def device_writes(self, damage: tuple[int, int] | None = None) -> None:
        if (message := self.edge.next_message()) is not None:
            self.up.append(damaged(message, damage))

    @precondition(lambda self: self.down)
    @rule()
    def device_reads(self) -> None:
        self.edge.receive(self.down.popleft(), self.now_s)
        self.listen()

    @precondition(lambda self: len(self.outcomes) > 9)
    @rule()
    def stream_breaks(self) -> None:
        self.edge.lose(UnreachableError("gone"))
        self.listen()

    def listen(self) -> None:
        while self.edge.events:
            event = self.edge.events.popleft()
            if isinstance(event, Granted):
                assert self.outcomes[event.id] is None
                self.granted.append(event.id)
                self.holding.add(event.id)
            elif isinstance(event, (Answered, Failed)) and event.id not in self.probes:
                self.ends(event.id, event)

    def ends(self, frame_id: int, outcome: object) -> None:
        assert self.outcomes[frame_id] is None, "a frame that ends twice"
        self.outcomes[frame_id] = outcome
        self.holding.discard(frame_id)

    # The worker. -------------------------------------------------------------------------

    @precondition(lambda self: self.up)
    @rule()
    def worker_reads(self) -> None:
        index = self.worker.came(self.now_s)
        frame_id = 0
        try:
            message = self.worker.read(self.up.popleft())
            kind = message.WhichOneof("kind")
            if kind == "frame":
                frame_id = message.frame.id
                self.worker.admit(self.now_s)
                if frame_crc32(message.frame) != message.frame.crc32:
                    raise FrameError(pb.CORRUPT, "the CRC does not fit")
                self.worker.take(index, frame_id)
                self.computing.append((index, frame_id))
            elif kind == "cancel":
                self.worker.cancel(message.cancel.id)
            else:
                self.worker.say(pb.ProbeReply(id=message.probe.id))
        except FrameError as error:
            if error.status == pb.OVERLOADED:  # not while every credit comes with an answer
                assert self.now_s > LOST_CREDIT_S
            self.worker.say(pb.Reply(id=frame_id, message_index=index, status=error.status))

    @precondition(lambda self: self.computing)
    @rule(which=Which, status=st.sampled_from([pb.OK, pb.OVERLOADED, pb.INTERNAL]))
    def worker_answers(self, which: int, status: pb.Status = pb.OK) -> None:
        index, frame_id = self.computing.pop(which % len(self.computing))
        if self.worker.is_cancelled(frame_id):
            status = pb.CANCELLED
        self.worker.say(pb.Reply(id=frame_id, message_index=index, status=status, outputs=TENSORS))

    @rule(damage=Damage, lost=st.sampled_from([False] * 4 + [True]))
    def worker_writes(self, damage: tuple[int, int] | None = None, lost: bool = False) -> None:
        if (message := self.worker.next_message()) is not None:
            parse_server(message)
            self.worker.written(self.now_s)
            if not lost:
                self.down.append(damaged(message, damage))

    @precondition(lambda self: len(self.outcomes) > 9)
    @rule(reopen=st.booleans())
    def worker_stops(self, reopen: bool) -> None:
        self.worker.drain(1000, reopen=reopen)

    # Both. -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        if self.edge.due_s <= self.now_s:
            self.edge.tick(self.now_s)
            assert self.edge.due_s > self.now_s
        if self.worker.due_s <= self.now_s:
            self.worker.tick(self.now_s)
        self.listen()

    @rule(lost=st.booleans())
    def frames_go_all_the_way(self, lost: bool) -> None:
        while self.granted:
            self.build(0)
        while self.edge.has_messages:
            self.device_writes()
        while self.up:
            self.worker_reads()
        while self.computing:
            self.worker_answers(0)
        while self.worker.next_message() is not None:
            self.worker_writes(lost=lost)

    @invariant()
    def no_more_are_under_way_than_granted(self) -> None:
        assert len(self.holding) <= CREDITS
        assert self.worker.computing == len(self.computing)
        assert self.edge.bytes_under_way >= 0

    def teardown(self) -> None:
        """What is under way arrives, and what does not come is waited for."""
        for _ in range(20):
            self.frames_go_all_the_way(lost=False)
            while self.down:
                self.device_reads()
            self.time_passes(3.0)
        assert self.edge.next_message() is None
        assert None not in self.outcomes.values(), "a frame that never ends"
        assert self.edge.idle
        assert self.edge.bytes_under_way == 0
        assert self.edge.due_s == math.inf
        assert self.worker.unanswered == 0
        assert self.unread.nbytes == 0
        for number in range(CREDITS + 1):  # all credits are back, and no more
            self.ask(5000.0)
            while self.granted:
                self.build(0)
            held = 0 if self.edge.broken or self.edge.draining else min(number + 1, CREDITS)
            assert len(self.holding) == held


BothEnds.TestCase.settings = settings(stateful_step_count=60, deadline=None)
TestBothEnds = BothEnds.TestCase
