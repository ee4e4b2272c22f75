"""A silent worker: asked in a way that no server minds, and found out when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from splitpoint.edge.link import frame_stream
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL, SERVICE, channel_options
from splitpoint.proto.status import UnreachableError

# gRPC's default for servers, and for what stands in between.
LEAST_PING_MS = 300_000


class Plain:
    """A server of gRPC's own making, with its default rules for pings, that echoes probes."""

    def __init__(self) -> None:
        self.probes, self.echoes, self.answers = 0, 0, True

    async def infer(self, _: object, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            message = pb.ClientMessage.FromString(data)
            if message.HasField("hello"):
                welcome = pb.Welcome(protocol=PROTOCOL, credits=2)
                await context.write(pb.ServerMessage(welcome=welcome).SerializeToString())
            self.probes += message.HasField("probe")
            if message.HasField("probe") and self.answers:
                self.echoes += 1
                reply = pb.ProbeReply(id=message.probe.id)
                await context.write(pb.ServerMessage(probe=reply).SerializeToString())


@asynccontextmanager
async def stream_to(plain: Plain) -> AsyncIterator[FrameStream]:
    server = grpc.aio.server()
    handlers = {"Infer": grpc.stream_stream_rpc_method_handler(plain.infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = WorkerChannel(f"127.0.0.1:{port}")
    try:
        yield await channel.open_stream("model", "0" * 64, "test")
    finally:
        await channel.close()
        await server.stop(0)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about within 30 s")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_stream, "QUIET_S", 0.01)


async def test_an_idle_stream_is_kept_by_a_server_with_default_rules() -> None:
    plain = Plain()
    async with stream_to(plain) as stream:
        await until(lambda: plain.echoes > 20)
        assert stream.session.broken is None


def test_a_device_pings_no_more_often_than_every_server_allows() -> None:
    options = dict(channel_options(1 << 20))
    assert options["grpc.keepalive_time_ms"] > LEAST_PING_MS
    assert not options["grpc.keepalive_permit_without_calls"]


async def test_a_worker_that_is_silent_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Plain()
    monkeypatch.setattr(frame_stream, "ECHO_S", 0.1)
    async with stream_to(plain) as stream:
        plain.answers = False
        await until(lambda: stream.session.broken is not None)
        assert isinstance(stream.session.broken, UnreachableError)


async def test_frames_under_way_are_not_probed_behind() -> None:
    """A large frame takes its time on a slow link; its budget tells whether the worker is there."""
    plain = Plain()
    async with stream_to(plain) as stream:
        plain.answers = False
        asking = asyncio.create_task(
            stream.ask(
                lambda frame_id, budget_ms: pb.ClientMessage(
                    frame=pb.Frame(id=frame_id, budget_ms=budget_ms)
                ).SerializeToString(),
                60_000,
            )
        )
        await until(lambda: not stream.session.idle)
        probes = plain.probes
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert plain.probes <= probes + 1  # one may have been on its way
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
