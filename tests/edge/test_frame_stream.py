"""The frame stream against a scripted worker: no sockets, no waiting for real faults."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest
from patience import PATIENCE_S, until
from scripted_worker import ScriptedCall, frame, manners
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.link.probe import probe_link
from splitpoint.partition.errors import LinkError
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_reply
from splitpoint.proto.limits import PROTOCOL
from splitpoint.proto.session.edge_events import Returned
from splitpoint.proto.session.edge_session import MOST_CREDITS
from splitpoint.proto.status import (
    FrameCorruptError,
    FrameExpiredError,
    FrameRejectedError,
    OverloadedError,
    ProtocolError,
    UnreachableError,
)

HELLO = pb.Hello(protocol=PROTOCOL)


Answering = Callable[[pb.ClientMessage, int], list[bytes]]


async def opened(answer: Answering | ScriptedCall) -> FrameStream:
    call = answer if isinstance(answer, ScriptedCall) else ScriptedCall(answer)
    return await FrameStream.opened("scripted", call, HELLO)


def frames_of(call: ScriptedCall) -> int:
    return sum(message.WhichOneof("kind") == "frame" for message in call.sent)


def ok(message: pb.ClientMessage, index: int) -> bytes:
    return build_reply(pb.Reply(id=message.frame.id, message_index=index, status=pb.OK))


async def test_replies_out_of_order_find_their_frames() -> None:
    held: list[bytes] = []

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        held.append(ok(message, index))
        return held[::-1] if len(held) == 2 else []

    stream = await opened(answer)
    replies = await asyncio.gather(stream.ask(frame, 60_000), stream.ask(frame, 60_000))
    assert replies[0].reply.id < replies[1].reply.id
    await stream.close()


async def test_unreadable_message_is_known_by_its_place() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        return [build_reply(pb.Reply(id=0, message_index=index, status=pb.MALFORMED))]

    stream = await opened(answer)
    with pytest.raises(FrameRejectedError):
        await stream.ask(frame, 60_000)
    assert stream.session.broken is None
    await stream.close()


async def test_damaged_reply_is_corrupt_and_the_stream_lives() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        reply = pb.Reply(id=message.frame.id, message_index=index, status=pb.OK, crc32=1)
        return [b"\xff\xff", pb.ServerMessage(reply=reply).SerializeToString()]

    stream = await opened(answer)
    for _ in range(3):
        with pytest.raises(FrameCorruptError):
            await stream.ask(frame, 60_000)
    await stream.close()


async def test_stalled_link_does_not_hold_up_the_budget() -> None:
    """Neither a write that blocks nor missing credits make a frame later than its budget."""
    call = ScriptedCall(lambda message, index: manners(message, credits=1))
    stream = await opened(call)
    call.writable.clear()
    # The write would block for ever: that they end at all is their budgets' doing.
    asking = (stream.ask(frame, 100) for _ in range(3))
    results = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), PATIENCE_S)
    assert all(isinstance(result, FrameExpiredError) for result in results)
    sent = len(call.sent)
    call.writable.set()
    await asyncio.sleep(0.01)
    kinds = [message.WhichOneof("kind") for message in call.sent[sent:]]
    assert kinds.count("frame") <= 1, "frames that expired unsent must not be sent"
    await stream.close()


async def test_cancelled_frame_is_cancelled_at_the_worker() -> None:
    call = ScriptedCall(lambda message, index: manners(message))
    stream = await opened(call)
    asking = asyncio.create_task(stream.ask(frame, 60_000))
    await until(lambda: call.sent[-1].WhichOneof("kind") == "frame")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: call.sent[-1].WhichOneof("kind") == "cancel")
    await stream.close()


async def test_end_of_stream_fails_what_waits() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        return [b""] if message.WhichOneof("kind") == "frame" else manners(message)

    stream = await opened(answer)
    for _ in range(2):
        with pytest.raises(UnreachableError, match="lost"):
            await stream.ask(frame, 60_000)
    await stream.close()


@pytest.mark.parametrize("over", [False, True])
async def test_the_worker_s_words_are_heard_where_a_message_is_written_when_they_come(
    over: bool,
) -> None:
    """A write fails then, or the next one; either may be noticed before what is read."""

    class EndedCall(ScriptedCall):
        async def write(self, data: bytes) -> None:
            if pb.ClientMessage.FromString(data).WhichOneof("kind") != "frame":
                return await super().write(data)
            if over:
                self.replies.put_nowait(b"")
                raise asyncio.InvalidStateError("RPC already finished.")
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, details="gone")

    stream = await opened(EndedCall(lambda message, index: manners(message)))
    with pytest.raises(UnreachableError, match=r"is lost: no worker answers .* \(gone\)"):
        await asyncio.wait_for(stream.ask(frame, 60_000), PATIENCE_S)
    await stream.close()


async def test_a_stream_ends_with_the_channel_under_it() -> None:
    class ClosedCall(ScriptedCall):
        async def read(self) -> bytes:
            if (data := await super().read()) == b"closed":
                raise asyncio.CancelledError  # as gRPC's calls do
            return data

    call = ClosedCall(lambda message, index: manners(message))
    stream = await opened(call)
    call.replies.put_nowait(b"closed")
    await until(lambda: stream.session.broken is not None)
    with pytest.raises(UnreachableError, match="closed"):
        await stream.ask(frame, 60_000)
    await stream.close()


async def test_draining_worker_gets_no_more_frames() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        draining = pb.ServerMessage(draining=pb.Draining(grace_ms=1)).SerializeToString()
        return [draining, ok(message, index)]

    stream = await opened(answer)
    await stream.ask(frame, 60_000)
    with pytest.raises(OverloadedError, match="stopping"):
        await stream.ask(frame, 60_000)
    await stream.close()


async def test_worker_that_does_not_welcome() -> None:
    with pytest.raises(ProtocolError):
        await opened(lambda message, index: [ok(message, index)])


async def test_expired_frame_keeps_its_credit_until_the_worker_answers() -> None:
    """The worker still holds the frame: sending more than it granted would only be refused."""
    held: list[tuple[pb.ClientMessage, int]] = []
    busy = True

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") == "frame":
            if busy:
                held.append((message, index))
                return []
            return [ok(message, index)]
        return manners(message)

    call = ScriptedCall(answer)
    stream = await opened(call)
    results = await asyncio.gather(
        *(stream.ask(frame, 500) for _ in range(6)), return_exceptions=True
    )
    assert all(isinstance(result, FrameExpiredError) for result in results)
    assert len(held) == 2  # the credits
    busy = False
    for message, index in held:  # at last the worker answers the two
        call.replies.put_nowait(ok(message, index))
    replies = await asyncio.gather(*(stream.ask(frame, 60_000) for _ in range(4)))
    assert len(replies) == 4
    await stream.close()


async def test_reply_to_a_frame_with_a_damaged_id_is_known_by_its_place() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        damaged = message.frame.id + 64
        return [build_reply(pb.Reply(id=damaged, message_index=index, status=pb.CORRUPT))]

    stream = await opened(answer)
    with pytest.raises(FrameCorruptError):  # and not that it expired
        await stream.ask(frame, 60_000)
    await stream.close()


async def test_who_waits_for_a_credit_hears_at_once_that_the_stream_is_lost() -> None:
    """Not when its budget ends: there may be another worker, or the device."""

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        return manners(message)

    call = ScriptedCall(answer)
    stream = await opened(call)
    asking = [asyncio.create_task(stream.ask(frame, 600_000)) for _ in range(5)]
    await until(lambda: frames_of(call) == 2)  # the credits
    call.replies.put_nowait(b"")  # the worker ends the stream
    results = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), PATIENCE_S)
    assert {type(result) for result in results} == {UnreachableError}
    await stream.close()


async def test_the_reply_to_a_frame_that_nobody_waits_for_says_that_it_has_left() -> None:
    returned: list[tuple[FrameStream, Returned]] = []
    cancelled: list[int] = []

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") == "cancel":
            cancelled.append(message.cancel.id)
            times = pb.Times(total_us=MOST)  # more than has passed
            reply = pb.Reply(
                id=message.cancel.id, message_index=index - 1, status=pb.CANCELLED, times=times
            )
            return [build_reply(reply)]
        return manners(message)

    call = ScriptedCall(answer)
    stream = await opened(call)
    stream.on_returned = lambda which, frame: returned.append((which, frame))
    asking = asyncio.create_task(stream.ask(frame, 60_000))
    await until(lambda: call.sent[-1].WhichOneof("kind") == "frame")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: bool(returned))
    ((which, frame_returned),) = returned
    assert (which, frame_returned.id) == (stream, cancelled[0])
    assert 0 < frame_returned.had_ms < 60_000
    await stream.close()


MOST = 2**32 - 1


@pytest.mark.parametrize(
    "times",
    [
        pb.Times(total_us=MOST),
        pb.Times(total_us=MOST, queue_us=MOST, compute_us=MOST, decode_us=MOST),
        pb.Times(total_us=1, queue_us=MOST),
    ],
)
async def test_times_that_cannot_be_true_are_cut_to_what_can(times: pb.Times) -> None:
    """Else the link would look endlessly fast from then on, or a stage take less than nothing."""

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") != "frame":
            return manners(message)
        reply = pb.Reply(id=message.frame.id, message_index=index, status=pb.OK, times=times)
        return [build_reply(reply)]

    stream = await opened(answer)
    before_ms = stream.session.round_trip_ms
    found = await stream.ask(frame, 60_000)
    assert 0 <= found.queue_ms <= found.server_ms <= found.answer_ms
    if times.total_us == MOST:
        assert stream.session.round_trip_ms == before_ms > 0
        assert found.left_ms < 0  # nothing is learnt of the link
    await stream.close()


async def test_a_worker_may_not_have_thousands_of_frames_held_for_it() -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        return manners(message, credits=MOST)

    call = ScriptedCall(answer)
    stream = await opened(call)
    assert stream.session.credits == MOST_CREDITS
    asking = [asyncio.create_task(stream.ask(frame, 60_000)) for _ in range(MOST_CREDITS + 5)]
    await until(lambda: frames_of(call) >= MOST_CREDITS)
    for _ in range(100):
        await asyncio.sleep(0)
    assert frames_of(call) == MOST_CREDITS
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await stream.close()


@pytest.mark.parametrize("most", [0, 1, 2**64 - 1])
async def test_a_limit_that_makes_no_sense_does_not_end_the_probe(most: int) -> None:
    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") == "hello":
            welcome = pb.Welcome(protocol=PROTOCOL, credits=2, max_frame_bytes=most)
            return [pb.ServerMessage(welcome=welcome).SerializeToString()]
        return manners(message)

    stream = await opened(answer)
    with suppress(LinkError):  # no link at all may be too fast to be timed
        assert (await probe_link(stream, "scripted")).uplink_mbps > 0
    await stream.close()


@pytest.mark.parametrize("by_the_worker", [False, True])
async def test_nothing_holds_a_closed_stream(by_the_worker: bool) -> None:
    """Its call keeps a connection open at both ends for as long as anything holds it."""
    call = ScriptedCall(lambda message, index: manners(message))
    stream = await opened(call)
    session = stream.session
    if by_the_worker:
        call.replies.put_nowait(b"")
        await until(lambda: session.broken is not None)
    held = weakref.ref(stream)
    gc.disable()
    try:
        await stream.close()
        del stream
        await asyncio.sleep(0)  # the callbacks of its tasks
        assert held() is None
    finally:
        gc.enable()
