"""What somebody whom nobody knows can take of a worker: nothing that others need."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw_client import RawClient
from raw_http2 import RawConnection
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.options import StreamLimits
from splitpoint.cloud.wire import handshake, health, service, unary
from splitpoint.cloud.wire.health import Health
from splitpoint.cloud.wire.reflection import MOST_ASKING, Reflection
from splitpoint.cloud.worker import Worker
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL, SERVICE

ME = [("authorization", "Bearer me")]
HEALTH = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN, LATE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.DEADLINE_EXCEEDED
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def worker_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """It knows one client, has few places, and lets anybody watch as often as he likes."""
    monkeypatch.setattr(health, "WATCHES_PER_S", 1e6)
    path = tmp_path / "tokens.toml"
    path.write_text(f'[me]\ntoken_sha256 = "{hashlib.sha256(b"me").hexdigest()}"\n')
    limits = StreamLimits(max_streams=4, max_streams_per_client=4)
    return {"security": Security(tokens=path), "limits": limits}


def channel_to(worker: Worker) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(worker.address, [("grpc.use_local_subchannel_pool", 1)])


async def status_of(call: Any) -> grpc.StatusCode:
    return await asyncio.wait_for(call.code(), 30)


async def test_who_is_not_known_is_sent_away_before_a_request_is_read(worker: Worker) -> None:
    async with channel_to(worker) as channel:
        for method in ("Describe", "Fetch", "Infer"):
            calls = [channel.stream_stream(f"/{SERVICE}/{method}")() for _ in range(40)]
            assert {await status_of(call) for call in calls} == {UNKNOWN}, method
    async with RawClient(worker, metadata=ME) as client:
        assert (await client.describe()).models


async def test_half_of_a_message_is_not_kept_for_who_is_not_known(worker: Worker) -> None:
    """Calls that send all of a request but its last byte end, and with them what was sent."""
    connection = await RawConnection.open(worker.address)
    reading = asyncio.create_task(connection.read())
    message_bytes = 200_000  # within gRPC's limit, which is that of this model's frames
    streams = range(1, 60, 2)
    try:
        for stream in streams:
            await connection.begin(stream, f"/{SERVICE}/Describe")
            sending = connection.send_part(stream, message_bytes, message_bytes - 1)
            await asyncio.wait_for(sending, 30)
        for stream in streams:
            await asyncio.wait_for(connection.ended[stream].wait(), 30)
    finally:
        connection.close()
        await reading


async def test_a_request_that_does_not_come_is_not_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary, "REQUEST_S", 0.1)
    async with channel_to(worker) as channel:
        for method in (f"{SERVICE}/Describe", f"{SERVICE}/Fetch", f"{HEALTH}/Check"):
            call = channel.stream_stream(f"/{method}")(metadata=ME)
            assert await status_of(call) is LATE, method


async def test_what_is_no_request_is_refused(worker: Worker) -> None:
    async with channel_to(worker) as channel:
        for method in (f"{SERVICE}/Describe", f"{SERVICE}/Fetch", f"{HEALTH}/Check"):
            for data in (bytes(unary.REQUEST_BYTES + 1), b"\xff\xff\xff"):
                call = channel.unary_unary(f"/{method}")(data, metadata=ME)
                assert await status_of(call) is grpc.StatusCode.INVALID_ARGUMENT, method
            call = channel.stream_stream(f"/{method}")(metadata=ME)
            await call.done_writing()
            assert await status_of(call) is grpc.StatusCode.INVALID_ARGUMENT, method


class TakesNothing:
    """The context of a call whose client sends `message` and takes nothing: HTTP/2 allows that."""

    def __init__(self, message: Message) -> None:
        self._data = message.SerializeToString()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1234"

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return ME

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def read(self) -> bytes:
        return self._data

    async def write(self, _: object) -> None:
        await asyncio.Event().wait()


async def test_an_answer_that_is_not_taken_is_not_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary, "ANSWER_S", 0.1)
    monkeypatch.setattr(handshake, "HANDSHAKE_TIMEOUT_S", 0.1)
    (digest,) = worker.models
    hello = pb.ClientMessage(hello=pb.Hello(protocol=PROTOCOL, digest=digest))
    serving, answering = worker.backend.service, unary.Answering()
    for method, message in (
        (answering.method(serving.describe), pb.DescribeRequest(protocol=PROTOCOL)),
        (answering.method(Health().check), health_pb2.HealthCheckRequest()),
        (serving.infer, hello),
    ):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(method(None, TakesNothing(message)), 30)
    async with RawClient(worker, metadata=ME) as client:
        assert (await client.describe()).models


async def test_answers_that_nobody_takes_keep_nobody_out(worker: Worker) -> None:
    """gRPC counts such calls until their connections close: a limit for all would be reached."""
    each = 60  # of a connection; a worker with these limits once took 1,032 in all
    async with AsyncExitStack() as stack:
        for _ in range(18):
            connection = await RawConnection.open(worker.address, takes_bytes=0)
            reading = asyncio.create_task(connection.read())
            stack.callback(connection.close)
            for number in range(each):
                method = "Watch" if number % 2 else "Check"
                await connection.begin(2 * number + 1, f"/{HEALTH}/{method}")
                await connection.send(2 * number + 1, b"")
            await asyncio.wait_for(connection.answers(each), 30)
            assert not reading.done()
        async with RawClient(worker, metadata=ME) as client:
            assert (await client.describe()).models
            await client.hello()


async def test_watchers_take_no_place_of_others(worker: Worker) -> None:
    most = health.MOST_WATCHING
    async with AsyncExitStack() as stack, RawClient(worker, metadata=ME) as client:
        channels = [await stack.enter_async_context(channel_to(worker)) for _ in range(4)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        stub = stubs[0]
        # Each is answered before the next one comes, so that they wait in their order.
        calls = []
        for number in range(most + 8):
            watch = stubs[number % len(stubs)].Watch
            calls.append(watch(health_pb2.HealthCheckRequest(service=SERVICE)))
            assert (await asyncio.wait_for(calls[-1].read(), 30)).status == SERVING
        assert {await status_of(call) for call in calls[:8]} == {FULL}
        assert not any(call.done() for call in calls[8:])
        assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)).status == SERVING
        assert (await client.describe()).models
        await client.hello()
        for call in calls:
            call.cancel()


async def test_checks_without_a_request_keep_nobody_from_checking(worker: Worker) -> None:
    async with channel_to(worker) as channel:
        silent = [channel.stream_unary(f"/{HEALTH}/Check")() for _ in range(40)]
        for _ in range(3):
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert (await asyncio.wait_for(check, 30)).status == SERVING
        for call in silent:
            call.cancel()


async def test_nothing_is_unpacked_by_grpc(worker: Worker) -> None:
    """A request of 2 kB would be as large as a message may be before anybody looks at it."""
    async with channel_to(worker) as channel:
        for method in (f"{SERVICE}/Describe", f"{HEALTH}/Check"):
            call = channel.unary_unary(f"/{method}")
            asked = call(bytes(100_000), metadata=ME, compression=grpc.Compression.Gzip)
            assert await status_of(asked) is grpc.StatusCode.UNIMPLEMENTED, method


async def test_all_downloads_together_read_only_so_much_ahead(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "UNSENT_BYTES", 4096)
    monkeypatch.setattr(service, "LEAST_CHUNK_BYTES", 512)
    (digest,) = worker.models
    async with channel_to(worker) as channel:
        fetch = channel.unary_stream(
            f"/{SERVICE}/Fetch", pb.FetchRequest.SerializeToString, pb.Chunk.FromString
        )
        request = pb.FetchRequest(digest=digest, sha256=digest)
        chunks = [chunk async for chunk in fetch(request, metadata=ME)]
    assert max(len(chunk.data) for chunk in chunks) <= 4096
    data = b"".join(chunk.data for chunk in chunks)
    assert hashlib.sha256(data).hexdigest() == digest


class Silent:
    """A call's context, of a connection of its own each time, that asks nothing."""

    def __init__(self, host: str, number: int) -> None:
        self._peer = f"ipv4:{host}:{number}"
        self.status: grpc.StatusCode | None = None

    def peer(self) -> str:
        return self._peer

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def abort(self, status: grpc.StatusCode, words: str) -> None:
        self.status = status
        raise grpc.aio.AbortError(words)


async def test_who_fills_the_places_of_reflection_fills_his_own_whatever_his_connections() -> None:
    asked = Reflection()
    other = Silent("192.0.2.2", 1)
    crowd = [Silent("192.0.2.1", number) for number in range(30)]
    tasks = []
    for context in (crowd[0], other, *crowd[1:]):
        tasks.append(asyncio.create_task(asked.info(None, context)))
        for _ in range(10):
            await asyncio.sleep(0)
    assert other.status is None
    assert [context.status for context in crowd].count(FULL) == 30 - (MOST_ASKING - 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Watcher:
    """A call's context; one that is `stuck` takes no message."""

    def __init__(
        self, service: str = "", *, stuck: bool = False, address: str = "192.0.2.1"
    ) -> None:
        self._request, self._stuck = health_pb2.HealthCheckRequest(service=service), stuck
        self._address = address
        self.told: list[int] = []
        self.reads, self.status = 0, None

    def peer(self) -> str:
        return f"ipv4:{self._address}:1234"

    async def read(self) -> bytes:
        self.reads += 1
        return self._request.SerializeToString()

    async def abort(self, status: grpc.StatusCode, words: str) -> None:
        self.status = status
        raise grpc.aio.AbortError(words)

    async def write(self, message: health_pb2.HealthCheckResponse) -> None:
        if self._stuck:
            await asyncio.Event().wait()
        self.told.append(message.status)


async def test_a_watcher_that_reads_nothing_holds_up_nobody() -> None:
    state = Health()
    watchers = [Watcher(stuck=True), Watcher(), Watcher("another")]
    tasks = [asyncio.create_task(state.watch(None, watcher)) for watcher in watchers]

    async def settle() -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    await settle()
    state.set(serving=True)
    await settle()
    state.stop()
    state.set(serving=True)
    await settle()
    unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert watchers[1].told == [NOT_SERVING, SERVING, NOT_SERVING]
    assert set(watchers[2].told) == {unknown}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_begins_to_watch_again_and_again_is_sent_away_unread() -> None:
    now_s = 0.0
    state, allowed = Health(lambda: now_s), int(health.WATCHES_PER_S)
    tasks = []

    async def watch(*watchers: Watcher) -> list[Watcher]:
        """Those of them that are sent away."""
        tasks.extend(asyncio.create_task(state.watch(None, watcher)) for watcher in watchers)
        for _ in range(30):
            await asyncio.sleep(0)
        return [watcher for watcher in watchers if watcher.status is FULL]

    crowd, other = [Watcher() for _ in range(10 * allowed)], Watcher(address="192.0.2.2")
    refused = await watch(*crowd, other)
    assert refused == crowd[allowed:]
    assert not any(watcher.reads for watcher in refused)
    assert other.told == [NOT_SERVING]
    now_s = 1.5 / allowed
    assert len(await watch(Watcher(), Watcher())) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
