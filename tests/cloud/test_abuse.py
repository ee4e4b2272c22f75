"""What one client does to the others, with a real worker process: nothing."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import zstandard
from course import WorkerProcess, worker_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import free_port
from splitpoint.cloud.access.quotas import IN_VAIN_AT_ONCE, IN_VAIN_PER_S
from splitpoint.codec import CODECS, codec_named
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors, parse_server
from splitpoint.proto.limits import MAX_CREDITS, PROTOCOL, SERVICE

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from hostile_frames import hostile_frames, resealed

LIMITS = [("grpc.use_local_subchannel_pool", 1)]
HOSTILE, STREAMS, MEMORY_MB = 10_000, 8, 60


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "ingest-2"])
def worker(small_bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[WorkerProcess]:
    with worker_process(small_bundle.folder, free_port(), request.param) as running:
        yield running


class Client:
    """Speaks the wire as it likes, on a connection of its own."""

    def __init__(self, address: str, bundle: Bundle) -> None:
        self._address, self._bundle = address, bundle

    async def __aenter__(self) -> Client:
        self._channel = grpc.aio.insecure_channel(self._address, LIMITS)
        self.call = self._channel.stream_stream(f"/{SERVICE}/Infer")()
        hello = pb.Hello(protocol=PROTOCOL, digest=self._bundle.digest)
        await self.call.write(pb.ClientMessage(hello=hello).SerializeToString())
        assert parse_server(await self.call.read()).WhichOneof("kind") == "welcome"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self._channel.close()

    async def reply(self) -> pb.Reply:
        data = await asyncio.wait_for(self.call.read(), 30)
        return parse_server(data).reply

    async def ask(self, frame: bytes) -> pb.Reply:
        await self.call.write(frame)
        return await self.reply()


def good_frame(bundle: Bundle, frame_id: int, boundary: int, codec: str = "raw") -> bytes:
    specs = bundle.manifest.boundaries[boundary].tensors
    rng = np.random.default_rng(boundary)
    values = {s.name: rng.uniform(0, 99, s.shape).astype(s.numpy_dtype) for s in specs}
    tensors = encode_tensors(values, specs, codec_named(codec))
    return build_frame(id=frame_id, boundary=boundary, codec=codec, tensors=tensors, budget_ms=0)


def own_good_frames(bundle: Bundle) -> list[bytes]:
    kinds = ((0, "raw"), (1, "q8"), (2, "q4"), (0, "jpeg"), (1, "fp16"))
    return [good_frame(bundle, 1, boundary, codec) for boundary, codec in kinds]


@asynccontextmanager
async def undisturbed(worker: WorkerProcess, bundle: Bundle) -> AsyncIterator[list[pb.Reply]]:
    """A client that asks again and again; all its frames must be answered, and rightly."""
    stop, replies = asyncio.Event(), []
    async with Client(worker.address, bundle) as client:
        expected = (await client.ask(good_frame(bundle, 1, 0))).outputs[0].payload

        async def drive() -> None:
            while not stop.is_set():
                replies.append(await client.ask(good_frame(bundle, len(replies) + 2, 0)))

        driving = asyncio.create_task(drive())
        yield replies
        stop.set()
        await driving
    assert replies
    for reply in replies:
        assert reply.status == pb.OK, reply.reason
        got = np.frombuffer(reply.outputs[0].payload, np.float32)
        np.testing.assert_allclose(got, np.frombuffer(expected, np.float32), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
async def test_ten_thousand_hostile_frames(worker: WorkerProcess, small_bundle: Bundle) -> None:
    """Each is refused or answered; the neighbour loses nothing, and the worker does not grow."""
    frames = hostile_frames(own_good_frames(small_bundle), HOSTILE)
    memory_mb: list[float] = []
    answered = 0

    async def attack(client: Client) -> None:
        """As fast as the worker lets one stream send."""
        nonlocal answered
        under_way = 0

        async def hear() -> None:
            nonlocal answered, under_way
            assert (await client.reply()).status != pb.STATUS_UNSPECIFIED
            under_way, answered = under_way - 1, answered + 1
            if answered in (HOSTILE // 5, HOSTILE):
                memory_mb.append(worker.memory_mb)

        for data in frames:  # of all streams, each takes the next
            await client.call.write(data)
            under_way += 1
            while under_way > MAX_CREDITS - 1:
                await hear()
        while under_way:
            await hear()

    async with undisturbed(worker, small_bundle), AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(worker.address, small_bundle))
            for _ in range(STREAMS)
        ]
        await asyncio.gather(*map(attack, clients))
        assert answered == HOSTILE
        assert (await clients[0].ask(good_frame(small_bundle, 5, 0))).status == pb.OK
    before_mb, after_mb = memory_mb
    assert after_mb - before_mb < MEMORY_MB


async def test_wrong_frames_are_answered_no_faster_than_they_may_come(
    worker: WorkerProcess, small_bundle: Bundle
) -> None:
    count = IN_VAIN_AT_ONCE + 40
    async with Client(worker.address, small_bundle) as client:
        start_s = asyncio.get_running_loop().time()
        for number in range(count):
            await client.call.write(b"nonsense")
            if number >= MAX_CREDITS - 1:
                assert (await client.reply()).status == pb.MALFORMED
        for _ in range(MAX_CREDITS - 1):
            assert (await client.reply()).status == pb.MALFORMED
        took_s = asyncio.get_running_loop().time() - start_s
    assert took_s > 0.9 * (count - IN_VAIN_AT_ONCE) / IN_VAIN_PER_S


@pytest.mark.slow
async def test_any_bytes_get_a_reply(worker: WorkerProcess, small_bundle: Bundle) -> None:
    """What hypothesis thinks of as a message: one reply each, none of them OK by chance."""
    found: list[bytes] = []

    @settings(max_examples=300, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda **fields: pb.ClientMessage(frame=pb.Frame(**fields)).SerializeToString(),
            id=st.integers(0, 2**64 - 1), boundary=st.integers(0, 2**32 - 1),
            codec=st.text(max_size=20), budget_ms=st.integers(0, 2**32 - 1),
            crc32=st.integers(0, 2**32 - 1),
            tensors=st.lists(st.builds(
                pb.Tensor, dtype=st.integers(0, 2**32 - 1), payload=st.binary(max_size=50),
                shape=st.lists(st.integers(0, 2**32 - 1), max_size=9),
            ), max_size=3),
        ),
    ))  # fmt: skip
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    async with Client(worker.address, small_bundle) as client:
        for data in found:
            if pb_kind(data) in ("cancel", "probe"):
                continue  # a probe has an echo, and a cancel of nothing has none
            reply = await client.ask(data)
            assert reply.status not in (pb.OK, pb.STATUS_UNSPECIFIED)
        assert (await client.ask(good_frame(small_bundle, 1, 0))).status == pb.OK


def pb_kind(data: bytes) -> str | None:
    from google.protobuf.message import DecodeError

    try:
        return pb.ClientMessage.FromString(data).WhichOneof("kind")
    except DecodeError:
        return None


@pytest.mark.parametrize("codec", sorted(CODECS))
async def test_a_bomb_in_each_codec(
    worker: WorkerProcess, small_bundle: Bundle, codec: str
) -> None:
    """A payload that would unpack to 256 MB, after as much as can be true of it."""
    boundary = 0 if codec in ("jpeg", "webp", "png") else 1
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(256 << 20))
    raw = good_frame(small_bundle, 1, boundary)
    honest = bytearray(pb.ClientMessage.FromString(raw).frame.tensors[0].payload[:16])

    async with undisturbed(worker, small_bundle), Client(worker.address, small_bundle) as client:
        before_mb = worker.memory_mb
        for head in range(0, 17, 2):

            def change(frame: pb.Frame, head: int = head) -> None:
                frame.codec = codec
                frame.tensors[0].payload = bytes(honest[:head]) + bomb

            reply = await client.ask(resealed(raw, change))
            assert reply.status in (pb.TOO_LARGE, pb.UNDECODABLE, pb.UNKNOWN_CODEC), reply.reason
        assert worker.memory_mb - before_mb < MEMORY_MB


async def test_five_hundred_idle_connections(worker: WorkerProcess, small_bundle: Bundle) -> None:
    idle = [Client(worker.address, small_bundle) for _ in range(500)]
    async with undisturbed(worker, small_bundle) as replies:
        for first in range(0, len(idle), 50):
            await asyncio.gather(*(c.__aenter__() for c in idle[first : first + 50]))
        before = len(replies)
        await asyncio.sleep(1)
        assert len(replies) > before + 5
        for client in idle:
            await client.__aexit__()


async def test_a_client_that_never_reads(worker: WorkerProcess, small_bundle: Bundle) -> None:
    """It is not read from any further, and costs no more than its own answers."""
    before_mb = worker.memory_mb
    async with undisturbed(worker, small_bundle), Client(worker.address, small_bundle) as rude:
        frame, end_s = good_frame(small_bundle, 1, 0), time.monotonic() + 2

        async def flood() -> None:
            while time.monotonic() < end_s:
                await rude.call.write(frame)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(2)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    assert worker.memory_mb - before_mb < MEMORY_MB
