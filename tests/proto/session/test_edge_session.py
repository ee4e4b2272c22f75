"""The device's end of a stream, told what happens: no loop, no clock, no call."""

from __future__ import annotations

import math

import pytest
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, build_reply
from splitpoint.proto.session.edge_events import (
    Answered,
    Echoed,
    Event,
    Failed,
    Granted,
    Reopen,
    Returned,
)
from splitpoint.proto.session.edge_session import (
    LOST_CREDIT_S,
    MOST_CREDITS,
    EdgeSession,
    read_welcome,
)
from splitpoint.proto.status import (
    FrameCorruptError,
    FrameExpiredError,
    FrameRejectedError,
    OverloadedError,
    ProtocolError,
    UnreachableError,
)

BUSY = pb.Load(queue_ms=80.0, slowdown=1.0, wait_ms=[80.0])


class Edge:
    """A session whose time passes as the test says, and whose frames are built at once."""

    def __init__(self, credits: int = 2) -> None:
        self.now_s = 100.0
        self.session = EdgeSession("worker:7070", pb.Welcome(credits=credits), self.now_s)
        self.sent: list[pb.ClientMessage] = []

    def ask(self, budget_ms: float = 1000.0) -> int:
        return self.session.ask(budget_ms, self.now_s)

    def asked(self, budget_ms: float = 1000.0) -> int:
        """A frame that has its credit, and was handed over."""
        frame_id = self.ask(budget_ms)
        assert self.events() == [Granted(frame_id)]
        self.send(frame_id)
        return frame_id

    def send(self, frame_id: int, data: bytes | None = None) -> None:
        budget_ms = self.session.budget_ms(frame_id, self.now_s)
        frame = pb.ClientMessage(frame=pb.Frame(id=frame_id, budget_ms=budget_ms))
        self.session.send(frame_id, data or frame.SerializeToString(), self.now_s)

    def written(self) -> list[str | None]:
        """The kinds of all messages that there are to write now; `sent` has all that ever were."""
        new = []
        while (message := self.session.next_message()) is not None:
            new.append(pb.ClientMessage.FromString(message))
        self.sent += new
        return [message.WhichOneof("kind") for message in new]

    def events(self) -> list[Event]:
        events = list(self.session.events)
        self.session.events.clear()
        return events

    def errors(self) -> list[type[Exception]]:
        return [type(event.error) for event in self.events() if isinstance(event, Failed)]

    def reply(self, **fields: object) -> None:
        self.hear(build_reply(pb.Reply(**({"status": pb.OK} | fields))))

    def hear(self, data: bytes) -> None:
        self.session.receive(data, self.now_s)

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.session.tick(self.now_s)


@pytest.fixture
def edge() -> Edge:
    return Edge()


def test_an_answer_finds_its_frame_with_its_times(edge: Edge) -> None:
    first, second = edge.asked(), edge.asked()
    assert edge.written() == ["frame", "frame"]
    edge.now_s += 0.25
    edge.reply(id=second, message_index=3, times=pb.Times(total_us=50_000))
    (event,) = edge.events()
    assert isinstance(event, Answered)
    assert event.id == second
    assert event.answer.reply.id == second
    assert event.answer.answer_ms == pytest.approx(250)
    assert event.answer.server_ms == pytest.approx(50)
    edge.reply(id=first, message_index=2)
    assert [event.id for event in edge.events()] == [first]
    assert edge.session.idle


def test_the_worker_is_told_what_is_left_without_the_way_back(edge: Edge) -> None:
    edge.session.times.round_trip_ms = 40.0
    frame_id = edge.ask(budget_ms=1000.0)
    edge.now_s += 0.1
    assert edge.session.budget_ms(frame_id, edge.now_s) in (859, 860)
    late = edge.ask(budget_ms=20.0)
    assert edge.session.budget_ms(late, edge.now_s) == 1  # 0 would mean no limit


def test_no_more_frames_are_under_way_than_the_worker_granted(edge: Edge) -> None:
    ids = [edge.ask() for _ in range(4)]
    assert edge.events() == [Granted(ids[0])]  # the next one once that is built
    edge.send(ids[0])
    assert edge.events() == [Granted(ids[1])]
    edge.send(ids[1])
    assert edge.events() == []
    edge.written()
    edge.reply(id=ids[1], message_index=3)
    assert [type(event) for event in edge.events()] == [Granted, Answered]
    edge.send(ids[2])  # in the order in which they came
    assert edge.written() == ["frame"]
    assert edge.sent[-1].frame.id == ids[2]


def test_a_frame_that_is_not_built_makes_way_for_the_next(edge: Edge) -> None:
    first, second = edge.ask(), edge.ask()
    assert edge.events() == [Granted(first)]
    edge.session.give_up(first, edge.now_s)
    assert edge.events() == [Granted(second)]


def test_whatever_a_worker_grants_memory_is_bounded() -> None:
    assert Edge(credits=2**32 - 1).session.credits == MOST_CREDITS


def test_who_waits_for_a_credit_waits_no_longer_than_its_budget(edge: Edge) -> None:
    for _ in range(2):
        edge.asked()
    short, long = edge.ask(budget_ms=100.0), edge.ask()
    edge.passes(0.099)
    assert edge.events() == []
    assert edge.session.due_s == pytest.approx(100.1)
    edge.passes(0.002)
    (event,) = edge.events()
    assert isinstance(event, Failed)
    assert event.id == short
    assert isinstance(event.error, FrameExpiredError)
    edge.session.give_up(long, edge.now_s)
    assert edge.events() == []


def test_who_waits_for_a_credit_can_be_ended(edge: Edge) -> None:
    """As when the device has finished the frame: it is not sent, and the next has its place."""
    asked = [edge.asked() for _ in range(2)]
    waits, next_one = edge.ask(), edge.ask()
    edge.session.expire(waits, edge.now_s)
    (event,) = edge.events()
    assert isinstance(event, Failed)
    assert event.id == waits
    edge.session.give_up(asked[0], edge.now_s)
    assert edge.events() == [Granted(next_one)]


def test_a_frame_is_not_sent_when_its_budget_has_run_out(edge: Edge) -> None:
    frame_id = edge.ask(budget_ms=10.0)
    edge.now_s += 0.0095
    with pytest.raises(FrameExpiredError, match="before the frame was sent"):
        edge.session.budget_ms(frame_id, edge.now_s)
    edge.session.give_up(frame_id, edge.now_s)
    assert edge.session.idle
    assert edge.events() == [Granted(frame_id)]


def test_what_ends_before_it_was_written_is_not_written(edge: Edge) -> None:
    """It holds neither memory nor bandwidth, and the worker is not told of it."""
    expires, given_up = edge.asked(budget_ms=50.0), edge.asked()
    edge.passes(0.1)
    assert [type(event) for event in edge.events()] == [Failed]
    edge.session.give_up(given_up, edge.now_s)
    assert edge.events() == []
    assert edge.session.bytes_under_way == 0
    assert edge.session.idle
    assert edge.written() == []
    assert expires != given_up
    assert edge.asked()  # both credits are back
    assert edge.asked()


def test_an_expired_frame_keeps_its_credit_until_the_worker_answers(edge: Edge) -> None:
    ids = [edge.asked(budget_ms=50.0), edge.asked(budget_ms=50.0)]
    edge.written()
    edge.passes(0.06)
    assert [type(event) for event in edge.events()] == [Failed] * 2
    assert edge.written() == ["cancel", "cancel"]
    assert [message.cancel.id for message in edge.sent[-2:]] == ids
    waits = edge.ask()
    for frame_id in ids:
        edge.session.give_up(frame_id, edge.now_s)  # it has its outcome
    assert edge.events() == []
    assert edge.session.bytes_under_way > 0
    times = pb.Times(total_us=40_000)
    edge.reply(id=ids[0], message_index=2, status=pb.CANCELLED, times=times)
    assert edge.events() == [Granted(waits), Returned(ids[0], 40.0)]
    edge.send(waits)
    edge.passes(1.0)


def test_a_credit_that_does_not_come_back_is_lost_after_a_while(edge: Edge) -> None:
    edge.session.times.round_trip_ms = 500.0
    for _ in range(2):
        frame_id = edge.asked()
        edge.written()
        edge.session.give_up(frame_id, edge.now_s)
        edge.events()
    waits = edge.ask(budget_ms=60_000)
    assert edge.session.due_s <= edge.now_s + LOST_CREDIT_S + 4 * 0.5
    edge.passes(LOST_CREDIT_S + 4 * 0.5 - 0.01)
    assert edge.events() == []
    edge.passes(0.02)
    granted, *lost = edge.events()
    assert granted == Granted(waits)
    assert [type(event) for event in lost] == [Returned] * 2  # whoever counts them stops
    assert not any(event.told for event in lost)
    edge.reply(id=1, message_index=2)  # at last, and nothing comes of it
    assert edge.events() == []


def test_a_caller_may_end_the_wait_as_the_budget_does(edge: Edge) -> None:
    frame_id = edge.asked()
    edge.written()
    for _ in range(2):
        edge.session.expire(frame_id, edge.now_s)
    assert [type(event) for event in edge.events()] == [Failed]
    assert edge.written() == ["cancel"]


@pytest.mark.parametrize("status", [pb.OVERLOADED, pb.INTERNAL, pb.EXPIRED], ids=pb.Status.Name)
def test_a_refused_frame_is_under_way_no_longer(edge: Edge, status: pb.Status) -> None:
    frame_id = edge.asked()
    edge.written()
    edge.passes(0.5)
    edge.reply(id=frame_id, message_index=2, status=status, times=pb.Times(total_us=100_000))
    failed, returned = edge.events()
    assert isinstance(failed, Failed)
    assert returned == Returned(frame_id, 100.0)


def test_an_unreadable_message_is_known_by_its_place(edge: Edge) -> None:
    edge.session.probe()
    frame_id = edge.asked()
    edge.written()
    edge.reply(id=0, message_index=3, status=pb.MALFORMED)
    assert edge.errors() == [FrameRejectedError]
    assert edge.session.idle
    assert frame_id


def test_a_damaged_id_does_not_end_another_frame(edge: Edge) -> None:
    first, second = edge.asked(), edge.asked()
    edge.written()
    edge.reply(id=second, message_index=2, status=pb.CORRUPT)
    event, returned = edge.events()
    assert isinstance(event, Failed)
    assert event.id == first
    assert isinstance(returned, Returned)
    assert returned.id == first
    assert isinstance(event.error, FrameCorruptError)
    edge.reply(id=second, message_index=2, status=pb.CORRUPT)  # that message has its answer
    assert edge.events() == []
    edge.reply(id=second + 64, message_index=3)  # outputs of which frame?
    assert edge.errors() == [FrameCorruptError]


def test_a_worker_that_does_not_count_messages_is_understood(edge: Edge) -> None:
    frame_id = edge.asked()
    edge.reply(id=frame_id)  # before it was written
    assert edge.events() == []
    edge.written()
    edge.reply(id=frame_id)
    assert [type(event) for event in edge.events()] == [Answered]


def test_a_damaged_reply_is_corrupt_where_it_says_whose_it_was(edge: Edge) -> None:
    frame_id = edge.asked()
    edge.written()
    edge.hear(b"\xff\xff")

    def damaged(named: int) -> bytes:
        reply = pb.Reply(id=named, message_index=2, status=pb.OK, crc32=1, load=BUSY)
        return pb.ServerMessage(reply=reply).SerializeToString()

    edge.hear(damaged(frame_id + 1))
    assert edge.events() == []
    edge.hear(damaged(frame_id))
    assert edge.errors() == [FrameCorruptError]
    assert edge.session.load == pb.Load()  # it is not believed


def test_a_refusal_is_remembered_until_a_frame_is_answered(edge: Edge) -> None:
    first, second = edge.asked(), edge.asked()
    edge.written()
    edge.now_s += 1.0
    edge.reply(id=first, message_index=2, status=pb.OVERLOADED, load=BUSY)
    assert edge.errors() == [OverloadedError]
    assert edge.session.refused_s == edge.now_s
    assert edge.session.load == BUSY
    edge.reply(id=second, message_index=3)
    assert edge.session.refused_s == -math.inf
    assert edge.session.load == BUSY  # an answer without waits says nothing


def test_probes_are_echoed(edge: Edge) -> None:
    probe_id = edge.session.probe(padding_bytes=10)
    assert edge.written() == ["probe"]
    assert len(edge.sent[0].probe.padding) == 10
    edge.now_s += 1.0
    echo = pb.ServerMessage(probe=pb.ProbeReply(id=probe_id, load=BUSY)).SerializeToString()
    edge.hear(echo)
    edge.hear(echo)
    assert edge.events() == [Echoed(probe_id)]
    assert edge.session.load == BUSY
    assert edge.session.heard_s == edge.now_s


def draining(**fields: object) -> bytes:
    return pb.ServerMessage(draining=pb.Draining(**fields)).SerializeToString()


def test_a_stream_that_ends_takes_frames_until_another_is_there(edge: Edge) -> None:
    edge.hear(draining(grace_ms=5000, reopen=True))
    assert edge.events() == [Reopen()]
    assert edge.asked()


def test_a_worker_that_stops_gets_no_more_frames(edge: Edge) -> None:
    taken = edge.asked()
    edge.written()
    edge.hear(draining(grace_ms=5000))
    refused = edge.ask()
    assert edge.events() == [Granted(refused)]
    with pytest.raises(OverloadedError, match="stopping"):
        edge.session.budget_ms(refused, edge.now_s)
    edge.session.give_up(refused, edge.now_s)
    edge.reply(id=taken, message_index=2)
    assert [type(event) for event in edge.events()] == [Answered]


def test_a_lost_stream_fails_all_that_waits_and_nothing_twice(edge: Edge) -> None:
    sent, unsent, waits = edge.asked(), edge.asked(), edge.ask()
    edge.session.next_message()
    probe_id = edge.session.probe()
    for reason in ("gone", "closed"):
        edge.session.lose(UnreachableError(reason))
    events = edge.events()
    assert {event.id for event in events if isinstance(event, Failed)} == {
        sent, unsent, waits, probe_id,
    }  # fmt: skip
    assert len(events) == 4
    assert str(edge.session.broken) == "gone"
    assert edge.session.idle
    assert edge.written() == []
    late = edge.ask()
    with pytest.raises(UnreachableError, match="lost: gone"):
        edge.session.budget_ms(late, edge.now_s)
    edge.events()
    edge.session.probe()
    assert edge.errors() == [UnreachableError]


def test_frames_of_a_lost_stream_that_nobody_waited_for_are_not_told_of(edge: Edge) -> None:
    frame_id = edge.asked()
    edge.written()
    edge.session.give_up(frame_id, edge.now_s)
    edge.events()
    edge.session.lose(UnreachableError("gone"))
    assert edge.events() == []


def test_the_answer_to_hello() -> None:
    welcome = pb.Welcome(credits=4)
    data = pb.ServerMessage(welcome=welcome).SerializeToString()
    assert read_welcome(data, "worker:7070") == welcome
    for other in (pb.Welcome(), None):
        message = pb.ServerMessage(draining=pb.Draining())
        if other is not None:
            message = pb.ServerMessage(welcome=other)
        with pytest.raises(ProtocolError):
            read_welcome(message.SerializeToString(), "worker:7070")
    with pytest.raises(FrameError):
        read_welcome(b"\xff", "worker:7070")
