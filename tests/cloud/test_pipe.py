"""Messages between two processes, in whatever pieces they come, and what ends that."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from patience import until
from splitpoint.cloud.between import pipe as pipe_module
from splitpoint.cloud.between.messages import Kind, MessageError
from splitpoint.cloud.between.pipe import Pipe, json_fields


class End:
    """One end, with what came to it."""

    def __init__(self) -> None:
        self.came: list[tuple[Kind, bytes]] = []
        self.lost: list[Exception | None] = []
        self.handlers = {
            kind: lambda data, kind=kind: self.came.append((kind, data))
            for kind in (Kind.SUBMIT, Kind.CANCEL, Kind.LOG)
        }

    async def over(self, end: socket.socket) -> Pipe:
        return await Pipe.over(end, self.handlers, self.lost.append)


@asynccontextmanager
async def one_end() -> AsyncIterator[tuple[End, Pipe, socket.socket]]:
    """A pipe, and a bare socket at the other end of it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    end = End()
    pipe = await end.over(ours)
    try:
        yield end, pipe, theirs
    finally:
        theirs.close()
        await until(lambda: end.lost)


def packed(kind: int, data: bytes) -> bytes:
    return struct.pack("<IB", len(data), kind) + data


async def test_messages_come_in_their_order_whatever_pieces_they_come_in() -> None:
    chance = random.Random(0)
    sent = [
        (chance.choice([Kind.SUBMIT, Kind.CANCEL]), chance.randbytes(chance.choice([0, 5, 3000])))
        for _ in range(100)
    ]
    data = b"".join(packed(*message) for message in sent)
    async with one_end() as (end, _, other):
        loop = asyncio.get_running_loop()
        while data:
            size = chance.choice([1, 7, 2000])
            await loop.sock_sendall(other, data[:size])
            data = data[size:]
            await asyncio.sleep(0)
        await until(lambda: len(end.came) == len(sent))
    assert end.came == sent
    assert end.lost == [None]


async def test_what_is_sent_in_one_turn_is_sent_together() -> None:
    first, second = End(), End()
    ours, theirs = socket.socketpair()
    a, b = await first.over(ours), await second.over(theirs)
    for number in range(50):
        a.send(Kind.SUBMIT, bytes([number]))
    b.say(Kind.LOG, words="é")
    a.close()
    await until(lambda: first.lost and second.lost)
    assert [data[0] for _, data in second.came] == list(range(50))
    a.send(Kind.SUBMIT, b"nobody hears this")
    assert a.has_ended


@pytest.mark.parametrize(
    "data",
    [
        packed(Kind.SETUP, b""),  # not for this end
        packed(250, b"no such kind"),
        struct.pack("<IB", pipe_module.MOST_BYTES + 1, Kind.SUBMIT),
    ],
)
async def test_what_nobody_can_have_meant_ends_it(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_end() as (end, _, other):
        other.send(packed(Kind.CANCEL, b"first") + data + packed(Kind.CANCEL, b"never"))
        await until(lambda: end.lost)
    assert end.came == [(Kind.CANCEL, b"first")]
    assert isinstance(end.lost[0], MessageError)


async def test_a_handler_that_fails_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async with one_end() as (end, _, other):

        def fails(data: bytes) -> None:
            raise ZeroDivisionError

        end.handlers[Kind.LOG] = fails
        other.send(packed(Kind.LOG, b""))
        await until(lambda: end.lost)
    assert "ZeroDivisionError" in str(end.lost[0])
    assert "cannot be handled" in caplog.text


async def test_one_that_does_not_read_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "SENDS_BYTES", 1000)
    async with one_end() as (_, pipe, _other):
        assert not pipe.is_behind
        for _ in range(20):
            pipe.send(Kind.LOADS, bytes(100_000))
        await asyncio.sleep(0)
        assert pipe.is_behind
        pipe.abort()


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff"])
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(MessageError):
        json_fields(data)
