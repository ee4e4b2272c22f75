"""Limits against slow, silent and flooding clients, on a real worker."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import grpc
import pytest
from local_worker import local_worker
from patience import until
from raw_client import RawClient
from splitpoint.cloud.access.refusals import Refusal
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.options import StreamLimits
from splitpoint.cloud.wire import handshake as handshake_module
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import SERVICE

LATE, FULL = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED
PROBE = pb.ClientMessage(probe=pb.Probe(id=1)).SerializeToString()
ME = [("authorization", "Bearer me")]


def serving(bundle: Bundle, **limits: float) -> Worker:
    stream_limits = StreamLimits(**limits)  # type: ignore[arg-type]
    return local_worker(bundle, limits=stream_limits)


def serving_me(bundle: Bundle, folder: Path, line: str) -> Worker:
    path = folder / "tokens.toml"
    digest = hashlib.sha256(b"me").hexdigest()
    path.write_text(f'[me]\ntoken_sha256 = "{digest}"\n{line}\n')
    security = Security(tokens=path)
    return local_worker(bundle, security=security)


def test_limits_that_make_no_sense() -> None:
    for fields in ({"max_streams": 0}, {"max_streams_per_client": 0}, {"idle_s": 0},
                   {"max_age_s": -1}, {"idle_s": float("nan")}, {"move_s": -1}):  # fmt: skip
        with pytest.raises(ServeError):
            StreamLimits(**fields)


@pytest.mark.usefixtures("both_ways")
async def test_requests_per_second(small_bundle: Bundle, tmp_path: Path) -> None:
    """The rate is the client's, not the stream's; the streams live on."""
    async with (
        serving_me(small_bundle, tmp_path, "max_requests_per_s = 0.001") as worker,
        RawClient(worker, metadata=ME) as one,
        RawClient(worker, metadata=ME) as two,
    ):
        await one.hello()
        await two.hello()
        await one.call.write(one.frame(1))
        assert (await one.reply()).status == pb.OK
        for client in (one, two):
            await client.call.write(client.frame(2))
            reply = await client.reply()
            assert (reply.id, reply.status) == (2, pb.OVERLOADED)
            assert "0.001 times a second" in reply.reason
            await client.call.write(PROBE)
            assert (await client.message()).probe.id == 1
        await until(lambda: worker.refusals.counts == {Refusal.RATE: 2})


@pytest.mark.usefixtures("both_ways")
async def test_bytes_in_flight(small_bundle: Bundle, tmp_path: Path) -> None:
    nbytes = sum(spec.nbytes_at(1) for spec in small_bundle.manifest.boundaries[0].tensors)
    line = f"max_bytes_in_flight = {nbytes}"
    async with serving_me(small_bundle, tmp_path, line) as worker:
        async with RawClient(worker, metadata=ME) as client:
            await client.hello()
            for number in range(1, 6):  # what is answered does not count any more
                await client.call.write(client.frame(number, codec="png" if number % 2 else "raw"))
                assert (await client.reply()).status == pb.OK
            await client.call.write(client.frame(6, boundary=1))
            reply = await client.reply()
            assert (reply.id, reply.status) == (6, pb.OVERLOADED)
            assert f"it may have {nbytes}" in reply.reason
            await client.call.write(client.frame(7))
            assert (await client.reply()).status == pb.OK
        await until(lambda: worker.refusals.counts == {Refusal.BYTES: 1})
        await until(lambda: not len(worker.backend.service.stream_places))
        await until(lambda: not worker.backend.service.uses.nbytes)


@pytest.mark.usefixtures("both_ways")
async def test_bytes_of_a_client_that_leaves_are_given_back(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    line = "max_bytes_in_flight = 1e9"
    async with serving_me(small_bundle, tmp_path, line) as worker:
        for _ in range(3):
            async with RawClient(worker, metadata=ME) as client:
                await client.hello()
                for number in range(1, 5):
                    await client.call.write(client.frame(number, 1, "q8"))
        await until(lambda: not len(worker.backend.service.stream_places))
        await until(lambda: not worker.backend.service.uses.nbytes)


@pytest.mark.usefixtures("both_ways")
async def test_streams_of_one_client(small_bundle: Bundle, tmp_path: Path) -> None:
    async with serving_me(small_bundle, tmp_path, "max_streams = 1") as worker:
        async with RawClient(worker, metadata=ME) as one:
            await one.hello()
            async with RawClient(worker, metadata=ME) as two:
                code, words = await two.ended()
                assert code is FULL
                assert "me has 1 streams" in words
            # Downloads have places of their own: a stream that works may need another segment.
            assert await one.fetch(one.digest, one.digest)
        await until(lambda: not len(worker.backend.service.stream_places))
        async with RawClient(worker, metadata=ME) as three:
            await three.hello()
        await until(lambda: worker.refusals.counts == {Refusal.CLIENT_STREAMS: 1})


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_streams": 1}, Refusal.STREAMS),
        ({"max_streams_per_client": 1}, Refusal.CLIENT_STREAMS),
    ],
)
async def test_streams_of_all(
    small_bundle: Bundle, limits: dict[str, float], reason: Refusal
) -> None:
    """Clients without a name are told apart by their address: another connection gains nothing."""
    async with serving(small_bundle, **limits) as worker, RawClient(worker) as one:
        await one.hello()
        async with RawClient(worker) as two:
            assert (await two.ended())[0] is FULL
        await until(lambda: worker.refusals.counts == {reason: 1})
        await one.call.write(one.frame(1))
        assert (await one.reply()).status == pb.OK


async def test_silent_before_the_handshake(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake_module, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with serving(small_bundle) as worker, RawClient(worker) as client:
        assert await client.ended() == (LATE, "no Hello came")
        await until(lambda: worker.refusals.counts == {Refusal.SILENT: 1})


@pytest.mark.usefixtures("both_ways")
async def test_silent_after_it(small_bundle: Bundle) -> None:
    async with serving(small_bundle, idle_s=0.3) as worker, RawClient(worker) as client:
        await client.hello()
        await client.call.write(client.frame(1))
        assert (await client.reply()).status == pb.OK
        code, words = await client.ended()
        assert code is LATE
        assert "idle for 0.3 s" in words
        await until(lambda: worker.refusals.counts == {Refusal.IDLE: 1})
        await until(lambda: not len(worker.backend.service.stream_places))


@pytest.mark.usefixtures("both_ways")
async def test_one_that_sends_and_never_reads(small_bundle: Bundle) -> None:
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 14)]
    async with (
        serving(small_bundle, idle_s=0.5) as worker,
        RawClient(worker, options=small_window) as client,
    ):
        await client.hello()

        async def flood() -> None:
            while True:
                await client.call.write(PROBE)

        flooding = asyncio.create_task(flood())
        await until(lambda: bool(worker.refusals.counts))
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await until(lambda: worker.refusals.counts == {Refusal.IDLE: 1})
        await until(lambda: not len(worker.backend.service.stream_places))


async def test_a_download_that_nobody_reads(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(64 << 20)
    async with serving(small_bundle, idle_s=0.5) as worker, RawClient(worker) as client:
        monkeypatch.setattr(ServedModel, "file", lambda model, sha256: large)
        call = client.channel.unary_stream(
            f"/{SERVICE}/Fetch", request_serializer=pb.FetchRequest.SerializeToString
        )(pb.FetchRequest(digest=client.digest))
        await until(lambda: bool(worker.refusals.counts))
        await until(lambda: worker.refusals.counts == {Refusal.STALLED_FETCH: 1})
        await until(lambda: not len(worker.backend.service.fetch_places))
        call.cancel()
        await client.hello()  # the connection serves others


@pytest.mark.usefixtures("both_ways")
async def test_an_old_stream_is_told_and_ended(small_bundle: Bundle) -> None:
    async with serving(small_bundle, max_age_s=0.2, move_s=0.5) as worker:
        async with RawClient(worker) as client:
            await client.hello()
            draining = (await client.message()).draining
            assert (draining.reopen, draining.grace_ms) == (True, 500)
            await client.call.write(client.frame(1))  # it was on its way
            assert (await client.reply()).status == pb.OK
            assert await client.ended() == (grpc.StatusCode.OK, "")
        assert not worker.refusals.counts
        async with RawClient(worker) as client:
            await client.hello()  # only the stream was old
