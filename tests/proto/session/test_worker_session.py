"""The worker's end of a stream, told what happens: no loop, no clock, no call."""

from __future__ import annotations

import pytest
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, parse_server, reply_crc32
from splitpoint.proto.limits import MAX_CREDITS
from splitpoint.proto.session.unread import Unread
from splitpoint.proto.session.worker_session import (
    MAX_UNREAD,
    Ending,
    WorkerSession,
    read_hello,
)

FOREVER_S = 1e9


class Worker:
    """A session whose time passes as the test says."""

    def __init__(
        self, idle_s: float = FOREVER_S, max_age_s: float = 0.0, move_s: float = 5.0
    ) -> None:
        self.now_s, self.unread = 100.0, Unread()
        self.session = WorkerSession(
            self.unread, idle_s=idle_s, max_age_s=max_age_s, move_s=move_s, now_s=self.now_s
        )

    def takes(self, frame_id: int) -> int:
        """The index of a frame that is found good."""
        index = self.session.came(self.now_s)
        frame = pb.ClientMessage(frame=pb.Frame(id=frame_id)).SerializeToString()
        self.session.admit(self.now_s)
        self.session.take(index, self.session.read(frame).frame.id)
        return index

    def answers(self, index: int, frame_id: int, status: pb.Status = pb.OK) -> int:
        return self.session.say(pb.Reply(id=frame_id, message_index=index, status=status))

    def written(self) -> list[pb.ServerMessage]:
        """All that there is to write."""
        messages = []
        while (data := self.session.next_message()) is not None:
            messages.append(parse_server(data))
            self.session.written(self.now_s)
        return messages

    def at(self, now_s: float) -> Ending | None:
        """Takes the time there, as a caller does that is told when something is due."""
        now_s += 100.0
        while self.session.due_s < now_s:
            self.now_s = max(self.now_s + 0.05, self.session.due_s)
            if (ending := self.session.tick(min(self.now_s, now_s))) is not None:
                return ending
            if self.now_s >= now_s:
                break
        self.now_s = now_s
        return self.session.tick(now_s)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def status_of(refused: pytest.ExceptionInfo[FrameError]) -> str:
    return pb.Status.Name(refused.value.status)


def test_messages_are_counted_whether_they_can_be_read_or_not(worker: Worker) -> None:
    for index, data in enumerate((b"\xff\xff", b""), 2):
        assert worker.session.came(worker.now_s) == index
        with pytest.raises(FrameError) as refused:
            worker.session.read(data)
        assert status_of(refused) == "MALFORMED"
        worker.answers(index, 0, pb.MALFORMED)
    assert worker.takes(7) == 4
    assert [message.reply.message_index for message in worker.written()] == [2, 3]


def test_hello_may_be_said_once(worker: Worker) -> None:
    hello = pb.ClientMessage(hello=pb.Hello(protocol=1)).SerializeToString()
    assert read_hello(hello).protocol == 1
    with pytest.raises(FrameError, match="said once"):
        worker.session.read(hello)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "say Hello first"),
        (b"\xff", "say Hello first"),
        (pb.ClientMessage(probe=pb.Probe()).SerializeToString(), "must be Hello"),
    ],
)
def test_what_is_no_hello(data: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        read_hello(data)


def test_answers_are_sealed_and_give_the_id_back(worker: Worker) -> None:
    index = worker.takes(7)
    with pytest.raises(FrameError, match="still unanswered") as refused:
        worker.takes(7)
    assert status_of(refused) == "MALFORMED"
    worker.answers(index + 1, 7, pb.MALFORMED)  # which says nothing of the first
    assert worker.session.computing == 1
    nbytes = worker.answers(index, 7)
    assert worker.session.computing == 0
    refusal, reply = [message.reply for message in worker.written()]
    assert (refusal.message_index, refusal.status) == (index + 1, pb.MALFORMED)
    assert (reply.id, reply.message_index, reply.status) == (7, index, pb.OK)
    assert reply.crc32 == reply_crc32(reply)
    assert nbytes == len(pb.ServerMessage(reply=reply).SerializeToString())
    worker.takes(7)


def test_more_frames_than_credits_are_refused(worker: Worker) -> None:
    for frame_id in range(1, MAX_CREDITS + 1):
        worker.takes(frame_id)
    with pytest.raises(FrameError) as refused:
        worker.takes(99)
    assert status_of(refused) == "OVERLOADED"


def test_a_cancel_is_news_once_and_of_frames_that_are_here(worker: Worker) -> None:
    index = worker.takes(7)
    assert not worker.session.cancel(8)
    assert not worker.session.is_cancelled(7)
    assert worker.session.cancel(7)
    assert not worker.session.cancel(7)
    assert worker.session.is_cancelled(7)
    assert worker.session.computing == 1  # it is yet to be answered
    worker.answers(index, 7, pb.CANCELLED)
    assert not worker.session.is_cancelled(7)
    assert not worker.session.cancel(7)


def test_a_refusal_of_no_frame_leaves_cancelled_ones_alone(worker: Worker) -> None:
    index = worker.takes(0)
    worker.session.cancel(0)
    worker.answers(index + 1, 7, pb.MALFORMED)
    assert worker.session.is_cancelled(0)


def test_a_worker_that_stops_answers_what_it_has(worker: Worker) -> None:
    index = worker.takes(7)
    worker.session.drain(1500)
    with pytest.raises(FrameError, match="worker is stopping") as refused:
        worker.takes(8)
    assert status_of(refused) == "STOPPING"
    worker.answers(index, 7)
    draining, reply = worker.written()
    assert (draining.draining.grace_ms, draining.draining.reopen) == (1500, False)
    assert reply.reply.id == 7


def test_who_does_not_read_is_not_read_from(worker: Worker) -> None:
    for number in range(MAX_UNREAD):
        assert worker.session.may_read
        worker.session.say(pb.ProbeReply(id=number))
    assert worker.session.may_read
    worker.session.say(pb.ProbeReply(id=1))
    assert not worker.session.may_read
    worker.session.written(worker.now_s)
    assert worker.session.may_read


def test_nor_is_anybody_with_an_answer_while_too_much_waits_for_all(worker: Worker) -> None:
    worker.unread.most_bytes = 100
    worker.unread.add(101)  # other streams'
    assert worker.session.may_read
    nbytes = worker.session.say(pb.ProbeReply(id=1))
    assert worker.unread.nbytes == 101 + nbytes
    assert not worker.session.may_read
    worker.written()
    assert worker.unread.nbytes == 101
    assert worker.session.may_read


def test_a_stream_is_done_once_the_client_has_all_its_answers(worker: Worker) -> None:
    index = worker.takes(7)
    worker.session.finishing = True
    assert not worker.session.is_done
    worker.answers(index, 7)
    assert not worker.session.is_done
    worker.written()
    assert worker.session.is_done


def test_nothing_is_left_of_a_stream_that_has_ended(worker: Worker) -> None:
    taken, index = worker.takes(6), worker.takes(7)
    worker.answers(index, 7)
    assert worker.unread.nbytes > 0
    worker.session.cancel(6)
    worker.session.end()
    assert worker.unread.nbytes == 0
    assert worker.answers(taken, 6) == 0  # computed all the same
    assert worker.session.unanswered == 0
    assert worker.session.next_message() is None
    assert not worker.session.is_cancelled(6)


# How long it lives. ------------------------------------------------------------------------------


def test_silence() -> None:
    worker = Worker(idle_s=60)
    assert worker.at(59) is None
    worker.session.came(worker.now_s)
    assert worker.at(118) is None
    assert worker.at(121) is Ending.IDLE
    assert worker.written() == []


def test_a_client_that_waits_for_the_worker_is_not_idle() -> None:
    worker = Worker(idle_s=60)
    index = worker.takes(7)
    assert worker.at(1000) is None
    worker.answers(index, 7)  # and nobody reads it
    assert worker.at(1200) is Ending.IDLE


def test_age() -> None:
    worker = Worker(idle_s=60, max_age_s=100, move_s=5)
    for second in range(0, 99, 10):
        assert worker.at(second) is None
        worker.session.came(worker.now_s)
    assert worker.written() == []
    assert worker.at(101) is None
    (told,) = worker.written()
    assert (told.draining.grace_ms, told.draining.reopen) == (5000, True)
    index = worker.takes(7)  # it was on its way
    assert worker.at(110) is None
    with pytest.raises(FrameError, match="as old as it may be") as refused:
        worker.takes(8)
    assert status_of(refused) == "STOPPING"
    worker.answers(index, 7)
    assert worker.at(110.1) is None
    worker.written()
    assert worker.at(111) is Ending.AGE
    assert worker.written() == []  # it was told once


def test_answers_that_nobody_reads_do_not_keep_an_old_stream() -> None:
    worker = Worker(idle_s=60, max_age_s=10, move_s=5)
    worker.session.say(pb.ProbeReply(id=1))
    assert worker.at(59) is None
    assert worker.at(61) is Ending.IDLE


def test_no_age_means_none() -> None:
    worker = Worker()
    assert worker.at(FOREVER_S / 2) is None
    assert worker.written() == []
