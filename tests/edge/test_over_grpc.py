"""Calls on a real channel."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from scripted_worker import manners
from splitpoint.edge import Credentials
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.transport.over_grpc import GrpcTransport
from splitpoint.edge.transport.transport import Call
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL, SERVICE

WORDS = "a token is needed"
HELLO = pb.Hello(protocol=PROTOCOL)


@pytest.fixture
def server() -> Iterator[str]:
    """One that turns everybody away at the door, without reading what they say."""

    def refuse(messages: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, WORDS)

    infer = grpc.stream_stream_rpc_method_handler(refuse)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Infer": infer}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


async def end_of(call: Call) -> tuple[grpc.StatusCode, str]:
    """What a client hears that writes as soon as it may."""
    try:
        await call.write(b"hello")
        assert await call.read() is grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    except asyncio.InvalidStateError:
        pass  # it had ended before
    return await call.code(), await call.details()


async def test_a_refusal_is_heard_as_the_worker_gave_it(server: str) -> None:
    """Also where it comes while the first message is written."""
    transport = GrpcTransport(server, 1 << 20, Credentials())
    heard: Counter[tuple[grpc.StatusCode, str]] = Counter()
    for number in range(1500):
        call = transport.open("Infer")
        await asyncio.sleep(0.001 * (number % 3) / 2)
        heard[await end_of(call)] += 1
    await transport.close()
    assert heard == {(grpc.StatusCode.UNAUTHENTICATED, WORDS): 1500}


async def test_a_call_that_ended_is_not_kept(server: str) -> None:
    """It holds its connection: waiting for the garbage collector would be too late."""
    transport = GrpcTransport(server, 1 << 20, Credentials())
    gc.collect()
    gc.disable()
    try:
        calls = []
        for _ in range(20):
            call = transport.open("Infer")
            with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                await call.read()
            calls.append(weakref.ref(call))
            del call
        await asyncio.sleep(0.1)
        assert not [call for call in calls if call() is not None]
    finally:
        gc.enable()
    await transport.close()


async def test_a_stream_that_is_ended_says_why_as_the_worker_gave_it() -> None:
    """Also where that comes while frames are written."""

    async def end_it(messages: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            message = pb.ClientMessage.FromString(data)
            if message.WhichOneof("kind") == "frame":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, WORDS)
            for reply in manners(message, credits=4):
                await context.write(reply)

    def frame(number: int, budget_ms: int) -> bytes:
        tensors = [pb.Tensor(payload=bytes(3000))]
        return pb.ClientMessage(frame=pb.Frame(id=number, tensors=tensors)).SerializeToString()

    server = grpc.aio.server()
    infer = grpc.stream_stream_rpc_method_handler(end_it)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Infer": infer})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(f"127.0.0.1:{port}", 1 << 20, Credentials())
    heard: Counter[str] = Counter()
    for _ in range(100):
        stream = await FrameStream.opened("it", transport.open("Infer"), HELLO)
        asking = (stream.ask(frame, 60_000) for _ in range(4))
        heard.update(str(end) for end in await asyncio.gather(*asking, return_exceptions=True))
        await stream.close()
    await transport.close()
    await server.stop(None)
    assert heard == {f"the stream to it is lost: it refuses: {WORDS}": 400}
