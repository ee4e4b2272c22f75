"""Hostile and clumsy clients against a real server: each bad message is its own problem."""

from __future__ import annotations

import asyncio
import random
import time

import grpc
import numpy as np
import pytest
from raw_client import RawClient
from splitpoint.cloud.worker import Worker
from splitpoint.codec import codec_named
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame, build_frame, decode_reply, encode_tensors
from splitpoint.proto.limits import MAX_CREDITS, PROTOCOL

pytestmark = pytest.mark.usefixtures("slow_times")  # its work is done on the compute thread


async def test_good_frames_between_bad_ones(worker: Worker) -> None:
    async with RawClient(worker) as client:
        welcome = await client.hello()
        assert welcome.credits == MAX_CREDITS
        assert len(welcome.segment_ms) == len(client.model.boundaries) - 1
        good = client.frame(7)
        flipped = bytearray(good)
        flipped[-40] ^= 4
        last = len(client.model.boundaries) - 1
        bad = {
            b"\xff\xff\xff": pb.MALFORMED,
            b"": pb.MALFORMED,
            pb.ClientMessage(hello=pb.Hello()).SerializeToString(): pb.MALFORMED,
            client.frame(0): pb.MALFORMED,
            bytes(flipped): pb.CORRUPT,
            build_frame(id=3, boundary=last, codec="raw", tensors=[], budget_ms=0): pb.OUT_OF_RANGE,
            build_frame(id=3, boundary=0, codec="nope", tensors=[], budget_ms=0): pb.UNKNOWN_CODEC,
            build_frame(id=3, boundary=0, codec="raw", tensors=[], budget_ms=0): pb.MISMATCH,
        }
        index = 1
        for message, status in bad.items():
            await client.call.write(message)
            await client.call.write(good)
            index += 2
            replies = {r.message_index: r for r in (await client.reply(), await client.reply())}
            assert replies[index - 1].status == status, pb.Status.Name(status)
            assert replies[index].status == pb.OK
            outputs = decode_reply(replies[index], client.model.boundaries[-1], 1)
            assert next(iter(outputs.values())).shape == (1, 5)


async def test_random_mutations_never_end_the_stream(worker: Worker) -> None:
    rng = random.Random(0)
    async with RawClient(worker) as client:
        await client.hello()
        good = [client.frame(1, 0), client.frame(1, 1, "q8"), client.frame(1, 2, "q4")]
        for _ in range(300):
            data = bytearray(rng.choice(good))
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            del data[rng.randrange(len(data) + 1) :]
            await client.call.write(bytes(data))
            reply = await client.reply()
            assert reply.status != pb.STATUS_UNSPECIFIED
        await client.call.write(client.frame(9))
        assert (await client.reply()).status == pb.OK


async def test_too_many_unanswered_frames_are_refused(worker: Worker) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        for frame_id in range(1, 3 * MAX_CREDITS):
            await client.call.write(client.frame(frame_id, 1, "q8"))
        statuses = [(await client.reply()).status for _ in range(1, 3 * MAX_CREDITS)]
        assert set(statuses) <= {pb.OK, pb.OVERLOADED}
        assert statuses.count(pb.OK) >= MAX_CREDITS


async def test_client_that_never_reads_is_not_read_from(worker: Worker) -> None:
    async with RawClient(worker) as rude, RawClient(worker) as polite:
        await rude.hello()
        await polite.hello()
        message = pb.ClientMessage(probe=pb.Probe(id=1)).SerializeToString()

        async def flood() -> None:
            for _ in range(200_000):
                await rude.call.write(message)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(0.5)
        await polite.call.write(polite.frame(1))
        assert (await polite.reply()).status == pb.OK
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"protocol": 99}, grpc.StatusCode.FAILED_PRECONDITION, "same version"),
        ({"digest": "0" * 64}, grpc.StatusCode.FAILED_PRECONDITION, "served: small"),
    ],
)
async def test_refused_handshake(
    worker: Worker, fields: dict, code: grpc.StatusCode, words: str
) -> None:
    async with RawClient(worker) as client:
        values = {"protocol": PROTOCOL, "digest": client.digest} | fields
        await client.call.write(pb.ClientMessage(hello=pb.Hello(**values)).SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call.read()
        assert caught.value.code() is code
        assert words in (caught.value.details() or "")


async def test_frame_before_hello(worker: Worker) -> None:
    async with RawClient(worker) as client:
        await client.call.write(client.frame(1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_late_and_cancelled_frames_get_their_answers(worker: Worker) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        chain = client.model.runner.chain
        step = chain.step

        def slow(segment: int, state: dict) -> dict:
            time.sleep(0.1)
            return step(segment, state)

        chain.step = slow  # type: ignore[method-assign]
        try:
            await client.call.write(client.frame(1, 1))
            await asyncio.sleep(0.05)  # the first is being computed
            await client.call.write(client.frame(2, 0, budget_ms=30))
            await client.call.write(client.frame(3, 0))
            cancel = pb.ClientMessage(cancel=pb.Cancel(id=3))
            await client.call.write(cancel.SerializeToString())
            statuses = {r.id: r.status for r in [await client.reply() for _ in range(3)]}
        finally:
            chain.step = step  # type: ignore[method-assign]
        assert statuses == {1: pb.OK, 2: pb.OVERLOADED, 3: pb.CANCELLED}


async def test_a_frame_that_breaks_a_batch_fails_alone_and_is_known_again(worker: Worker) -> None:
    async with RawClient(worker) as a, RawClient(worker) as b:
        await a.hello()
        await b.hello()
        chain = a.model.runner.chain
        step = chain.step

        def poisoned(segment: int, state: dict) -> dict:
            time.sleep(0.02)
            if segment == 0 and any((value == 9).any() for value in state.values()):
                raise RuntimeError("poison")
            return step(segment, state)

        chain.step = poisoned  # type: ignore[method-assign]
        specs = a.model.boundaries[0]
        poison = {s.name: np.full(s.shape, 9, s.numpy_dtype) for s in specs}
        tensors = encode_tensors(poison, specs, codec_named("raw"))

        def bad(frame_id: int) -> bytes:
            return build_frame(id=frame_id, boundary=0, codec="raw", tensors=tensors, budget_ms=0)

        try:
            await a.call.write(a.frame(1))  # occupies the engine while the others queue up
            await asyncio.sleep(0.01)
            await a.call.write(bad(2))
            await b.call.write(b.frame(1))
            await b.call.write(b.frame(2))
            mine = {r.id: r for r in [await a.reply(), await a.reply()]}
            theirs = [(await b.reply()).status for _ in range(2)]
            await b.call.write(bad(3))
            again = await b.reply()
        finally:
            chain.step = step  # type: ignore[method-assign]
        assert {number: reply.status for number, reply in mine.items()} == {
            1: pb.OK, 2: pb.INTERNAL,
        }  # fmt: skip
        assert mine[2].reason == "computing failed (RuntimeError)"
        assert theirs == [pb.OK, pb.OK]
        assert again.status == pb.INTERNAL
        assert "broke a batch" in again.reason


async def test_what_would_be_late_is_refused_before_it_is_decoded(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_vain(self: CheckedFrame) -> None:
        raise AssertionError("decoded")

    async with RawClient(worker) as client:
        await client.hello()
        monkeypatch.setattr(CheckedFrame, "decode", in_vain)
        reply = await client.ask(client.frame(1, boundary=1, codec="q8", budget_ms=5))
        assert reply.status == pb.OVERLOADED
        assert "compute" in reply.reason
        reply = await client.ask(client.frame(2, boundary=1, codec="q8"))
        assert reply.status == pb.INTERNAL  # this one it would have taken
