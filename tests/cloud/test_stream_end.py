"""What a stream held is given back, whenever its client leaves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from patience import PATIENCE_S, until
from raw_client import RawClient
from splitpoint.cloud.access.quotas import ClientUse
from splitpoint.cloud.access.refusals import Refusals
from splitpoint.cloud.access.tokens import Client
from splitpoint.cloud.wire.stream import InferStream, serve_stream
from splitpoint.cloud.worker import Worker
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL


class LeavingClient:
    """A call whose client sends some messages, and then is gone."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.leave = asyncio.Event()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4242"

    async def read(self) -> Any:
        if self._messages:
            return self._messages.pop(0)
        await self.leave.wait()
        raise ConnectionError("the client is gone")

    async def write(self, message: bytes) -> None:
        """It takes everything."""


@pytest.mark.parametrize("turns", range(16))
async def test_a_client_that_leaves_while_its_stream_ends(
    worker: Worker, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC cancels the call so many turns of the event loop after reading from it has failed."""
    (model,) = worker.models.values()
    step, go_on, computing = model.runner.step, threading.Event(), threading.Event()

    def held(*given: Any) -> Any:
        computing.set()
        go_on.wait(PATIENCE_S)
        return step(*given)

    monkeypatch.setattr(model.runner, "step", held)
    services = worker.backend.service.services
    figures = services.figures.of(model)
    use = ClientUse(Client(name="it"), Refusals())
    streams: set[InferStream] = set()
    async with RawClient(worker) as frames:
        hello = pb.Hello(protocol=PROTOCOL, digest=frames.digest)
        messages = [pb.ClientMessage(hello=hello).SerializeToString()]
        messages += [frames.frame(number, codec="q8") for number in (1, 2)]
    client = LeavingClient(*messages)
    serving = asyncio.create_task(serve_stream(client, services, use, streams))
    try:
        await until(computing.is_set)
        assert (figures.streams, len(streams)) == (1, 1)
        assert use.nbytes
        client.leave.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        (end,) = await asyncio.gather(serving, return_exceptions=True)
    finally:
        go_on.set()
    assert isinstance(end, (asyncio.CancelledError, ConnectionError))
    assert (figures.streams, len(streams), use.nbytes, services.unread.nbytes) == (0, 0, 0, 0)
