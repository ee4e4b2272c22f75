"""A worker that answers as a test says: no sockets, no waiting for real faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL


class ScriptedCall:
    """Stands in for gRPC's call: `answer` gets each client message and its place."""

    def __init__(self, answer: Callable[[pb.ClientMessage, int], list[bytes]]) -> None:
        self._answer = answer
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()  # b"" ends the stream
        self.writable = asyncio.Event()
        self.writable.set()
        self.sent: list[pb.ClientMessage] = []

    async def write(self, data: bytes) -> None:
        await self.writable.wait()
        self.sent.append(pb.ClientMessage.FromString(data))
        for reply in self._answer(self.sent[-1], len(self.sent)):
            self.replies.put_nowait(reply)

    async def read(self) -> bytes:
        data = await self.replies.get()
        return data or grpc.aio.EOF

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    async def details(self) -> str:
        return "gone"

    def cancel(self) -> None:
        pass


def manners(message: pb.ClientMessage, credits: int = 2) -> list[bytes]:
    """What every worker answers to Hello and Probe."""
    if message.WhichOneof("kind") == "hello":
        welcome = pb.Welcome(protocol=PROTOCOL, credits=credits)
        return [pb.ServerMessage(welcome=welcome).SerializeToString()]
    if message.WhichOneof("kind") == "probe":
        probe = pb.ProbeReply(id=message.probe.id)
        return [pb.ServerMessage(probe=probe).SerializeToString()]
    return []


def frame(frame_id: int, budget_ms: int) -> bytes:
    return pb.ClientMessage(frame=pb.Frame(id=frame_id, budget_ms=budget_ms)).SerializeToString()
