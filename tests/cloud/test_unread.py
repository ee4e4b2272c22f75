"""Answers that nobody reads take a bounded amount of memory, over all streams."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from patience import until
from raw_client import RawClient
from splitpoint.cloud.access.quotas import ClientUse
from splitpoint.cloud.access.refusals import Refusals
from splitpoint.cloud.access.tokens import Client
from splitpoint.cloud.wire.stream import serve_stream
from splitpoint.cloud.worker import Worker
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL


class Context:
    """A call whose client sends, takes Welcome, and reads answers once it is `reading`."""

    def __init__(self, *messages: bytes) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.reads, self.written, self.reading = 0, 0, asyncio.Event()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4242"

    async def read(self) -> Any:
        message = await self.messages.get()
        self.reads += 1
        return message or grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        if self.written:
            await self.reading.wait()
        self.written += 1


async def test_who_does_not_read_is_not_read_from_while_too_much_waits(
    worker: Worker,
) -> None:
    async with RawClient(worker) as frames:
        services = worker.backend.service.services
        unread = services.unread
        unread.most_bytes = 0
        hello = pb.Hello(protocol=PROTOCOL, digest=frames.digest)
        context = Context(
            pb.ClientMessage(hello=hello).SerializeToString(), frames.frame(1), frames.frame(2)
        )
        use = ClientUse(Client(name="it"), Refusals())
        serving = asyncio.create_task(serve_stream(context, services, use, set()))
        await until(lambda: unread.nbytes > 0)
        read = context.reads
        for number in range(10, 20):
            context.messages.put_nowait(frames.frame(number))
        for _ in range(300):
            await asyncio.sleep(0)
        assert context.reads <= max(read, 3) + 1  # one may have been under way
        async with RawClient(worker) as neighbour:  # who reads has all its answers
            await neighbour.hello()
            for number in range(1, 20):
                assert (await neighbour.ask(neighbour.frame(number))).status == pb.OK
        context.reading.set()
        await until(lambda: context.reads == 13)
        context.messages.put_nowait(b"")
        await asyncio.wait_for(serving, 30)
        assert context.written == 13  # Welcome, and one answer for each frame
        assert unread.nbytes == 0


async def test_what_waited_for_a_client_that_has_left_is_given_back(worker: Worker) -> None:
    async with RawClient(worker) as frames:
        services = worker.backend.service.services
        hello = pb.Hello(protocol=PROTOCOL, digest=frames.digest)
        context = Context(pb.ClientMessage(hello=hello).SerializeToString(), frames.frame(1))
        use = ClientUse(Client(name="it"), Refusals())
        serving = asyncio.create_task(serve_stream(context, services, use, set()))
        await until(lambda: services.unread.nbytes > 0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert services.unread.nbytes == 0
