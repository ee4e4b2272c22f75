"""A worker's double: passes everything on, or answers frames with garbage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from splitpoint.codec import TensorSpec, codec_named
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_reply, encode_tensors
from splitpoint.proto.limits import SERVICE

LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

NOBODYS = 1 << 60  # the id of a probe that nobody sent


class GarblingProxy:
    """Speaks raw bytes with both sides; while `garbling`, it answers frames itself, and badly."""

    def __init__(self, server: str) -> None:
        self._server, self._random = server, random.Random(0)
        self.garbling, self.garbled, self.address = False, 0, ""

    async def __aenter__(self) -> GarblingProxy:
        self._channel = grpc.aio.insecure_channel(self._server, LIMITS)
        self._grpc = grpc.aio.server(options=LIMITS)
        handlers = {
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Fetch": grpc.unary_stream_rpc_method_handler(self._fetch),
            "Infer": grpc.stream_stream_rpc_method_handler(self._infer),
        }
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        port = self._grpc.add_insecure_port("127.0.0.1:0")
        await self._grpc.start()
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._grpc.stop(0)
        await self._channel.close()

    async def _describe(self, request: bytes, context: Any) -> bytes:
        reply: bytes = await self._channel.unary_unary(f"/{SERVICE}/Describe")(request)
        return reply

    async def _fetch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        async for chunk in self._channel.unary_stream(f"/{SERVICE}/Fetch")(request):
            yield chunk

    async def _infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        call = self._channel.stream_stream(f"/{SERVICE}/Infer")()
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        async def up() -> None:
            index = 0
            async for data in requests:
                index += 1
                message = pb.ClientMessage.FromString(data)
                if self.garbling and message.WhichOneof("kind") == "frame":
                    answers.put_nowait(self._garbage(message.frame.id, index))
                    # The worker counts messages; it gets another one in the frame's place.
                    data = pb.ClientMessage(probe=pb.Probe(id=NOBODYS)).SerializeToString()
                await call.write(data)

        async def down() -> None:
            while (data := await call.read()) is not grpc.aio.EOF:
                if pb.ServerMessage.FromString(data).probe.id != NOBODYS:
                    answers.put_nowait(data)

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            while True:
                yield await answers.get()
        finally:
            for task in tasks:
                task.cancel()
            call.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _garbage(self, frame_id: int, index: int) -> bytes:
        self.garbled += 1
        kind = self.garbled % 4
        if kind == 0:
            return self._random.randbytes(200)
        reply = pb.Reply(id=frame_id, message_index=index, status=pb.OK)
        if kind == 1:  # no outputs at all
            return build_reply(reply)
        spec = TensorSpec(name="output", dtype="float32", shape=(1, 7), batch_dim=0)
        values = {"output": np.zeros((3, 7), np.float32)}
        reply.outputs.extend(encode_tensors(values, (spec,), codec_named("raw")))
        if kind == 2:  # another model's outputs
            return build_reply(reply)
        reply.crc32 = 12345
        return pb.ServerMessage(reply=reply).SerializeToString()
