"""Hostile and clumsy clients against a real server: each bad message is its own problem."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from splitpoint.cloud.worker import Worker
from splitpoint.codec import codec_named
from splitpoint.partition.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, decode_reply, encode_tensors, parse_server
from splitpoint.proto.limits import MAX_CREDITS, PROTOCOL, SERVICE


@pytest.fixture
async def worker(small_bundle: Bundle) -> AsyncIterator[Worker]:
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as running:
        # As slow as a real model, so that its work is done on the compute thread.
        for digest, model in running.models.items():
            slow = replace(model.times, segment_ms=(10.0,) * len(model.times.segment_ms))
            running.models[digest] = replace(model, times=slow)
        yield running


class RawClient:
    """The wire without the edge's manners."""

    def __init__(self, worker: Worker) -> None:
        self.digest, self.model = next(iter(worker.models.items()))
        self.channel = grpc.aio.insecure_channel(worker.address)

    async def __aenter__(self) -> RawClient:
        self.call = self.channel.stream_stream(f"/{SERVICE}/Infer")()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self.channel.close()

    async def hello(self, **fields: object) -> pb.Welcome:
        values = {"protocol": PROTOCOL, "digest": self.digest} | fields
        await self.call.write(pb.ClientMessage(hello=pb.Hello(**values)).SerializeToString())
        return parse_server(await self.call.read()).welcome

    async def reply(self) -> pb.Reply:
        data = await asyncio.wait_for(self.call.read(), 10)
        return parse_server(data).reply

    def frame(self, frame_id: int = 1, boundary: int = 0, codec: str = "raw", **over: int) -> bytes:
        specs = self.model.boundaries[boundary]
        values = {s.name: np.ones(s.shape, s.numpy_dtype) for s in specs}
        tensors = encode_tensors(values, specs, codec_named(codec))
        fields = {"budget_ms": 0} | over
        return build_frame(id=frame_id, boundary=boundary, codec=codec, tensors=tensors, **fields)


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


async def test_expired_and_cancelled_frames_get_their_answers(worker: Worker) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        runner = client.model.runner
        original = runner.run

        def slow(boundary: int, values: dict) -> dict:
            import time

            time.sleep(0.2)
            return original(boundary, values)

        runner.run = slow  # type: ignore[method-assign]
        try:
            await client.call.write(client.frame(1, 1))
            await asyncio.sleep(0.05)  # the first is being computed
            await client.call.write(client.frame(2, 2, budget_ms=20))
            await client.call.write(client.frame(3, 3))
            cancel = pb.ClientMessage(cancel=pb.Cancel(id=3))
            await client.call.write(cancel.SerializeToString())
            statuses = {r.id: r.status for r in [await client.reply() for _ in range(3)]}
        finally:
            runner.run = original  # type: ignore[method-assign]
        assert statuses == {1: pb.OK, 2: pb.EXPIRED, 3: pb.CANCELLED}


async def test_one_poisoned_frame_fails_alone(worker: Worker) -> None:
    """A request that makes the kernel raise does not take its batch with it."""
    async with RawClient(worker) as a, RawClient(worker) as b:
        await a.hello()
        await b.hello()
        runner = a.model.runner
        together, alone = runner.run_together, runner.run

        def poisoned(values: dict) -> bool:
            return any(v.max() > 1 for v in values.values())

        def run(boundary: int, values: dict) -> dict:
            import time

            time.sleep(0.05)
            if poisoned(values):
                raise RuntimeError("poison")
            return alone(boundary, values)

        runner.run = run  # type: ignore[method-assign]
        try:
            specs = a.model.boundaries[0]
            poison = {s.name: np.full(s.shape, 9, s.numpy_dtype) for s in specs}
            tensors = encode_tensors(poison, specs, codec_named("raw"))
            await a.call.write(a.frame(1))  # occupies the engine while the others queue up
            await asyncio.sleep(0.02)
            await a.call.write(
                build_frame(id=2, boundary=0, codec="raw", tensors=tensors, budget_ms=0)
            )
            await b.call.write(b.frame(1))
            await b.call.write(b.frame(2))
            mine = {r.id: r.status for r in [await a.reply(), await a.reply()]}
            theirs = [(await b.reply()).status for _ in range(2)]
        finally:
            runner.run = alone  # type: ignore[method-assign]
        assert mine == {1: pb.OK, 2: pb.INTERNAL}
        assert theirs == [pb.OK, pb.OK]
        assert together == runner.run_together


async def test_batches_equal_single_runs(worker: Worker) -> None:
    """Requests of different sizes that are computed together answer as they would alone."""
    model = next(iter(worker.models.values()))
    rng = np.random.default_rng(0)
    for boundary, specs in enumerate(model.boundaries[:-1]):
        requests = [
            {s.name: rng.uniform(0, 200, s.shape_at(batch)).astype(s.numpy_dtype) for s in specs}
            for batch in (1, 3, 2)
        ]
        joined = model.runner.run_together(boundary, requests)
        for request, together in zip(requests, joined, strict=True):
            for name, expected in model.runner.run(boundary, request).items():
                np.testing.assert_allclose(together[name], expected, rtol=1e-4, atol=1e-4)
