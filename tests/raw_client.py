"""The wire without the edge's manners."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import numpy as np
from patience import PATIENCE_S
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.worker import Worker
from splitpoint.codec import codec_named
from splitpoint.edge.transport.over_grpc import GrpcCall
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors, parse_server
from splitpoint.proto.limits import PROTOCOL, SERVICE


class RawClient:
    """One connection to a worker, with a stream; `server` where it is reached by another name."""

    def __init__(
        self,
        worker: Worker,
        model: ServedModel | None = None,
        *,
        server: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.model = model or next(iter(worker.models.values()))
        self.digest = self.model.bundle.digest
        self._metadata = tuple(metadata)
        server = server or worker.address
        # Connections of their own: those of one process would share one otherwise.
        options = [("grpc.use_local_subchannel_pool", 1), *options]
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(server, options)
        else:
            self.channel = grpc.aio.secure_channel(server, credentials, options)

    async def __aenter__(self) -> RawClient:
        infer = self.channel.stream_stream(f"/{SERVICE}/Infer")
        self.grpc_call = infer(metadata=self._metadata)
        self.call = GrpcCall(self.grpc_call)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self.channel.close()

    async def hello(self, **fields: object) -> pb.Welcome:
        values = {"protocol": PROTOCOL, "digest": self.digest} | fields
        await self.call.write(pb.ClientMessage(hello=pb.Hello(**values)).SerializeToString())
        return (await self.message()).welcome

    async def message(self) -> pb.ServerMessage:
        return parse_server(await asyncio.wait_for(self.call.read(), PATIENCE_S))

    async def ask(self, message: bytes) -> pb.Reply:
        await self.call.write(message)
        return await self.reply()

    async def reply(self) -> pb.Reply:
        return (await self.message()).reply

    async def describe(self) -> pb.DescribeReply:
        call = self.channel.unary_unary(
            f"/{SERVICE}/Describe",
            request_serializer=pb.DescribeRequest.SerializeToString,
            response_deserializer=pb.DescribeReply.FromString,
        )
        request = pb.DescribeRequest(protocol=PROTOCOL)
        return await call(request, metadata=self._metadata, timeout=PATIENCE_S)

    async def fetch(self, digest: str, sha256: str) -> bytes:
        call = self.channel.unary_stream(
            f"/{SERVICE}/Fetch",
            request_serializer=pb.FetchRequest.SerializeToString,
            response_deserializer=pb.Chunk.FromString,
        )
        request = pb.FetchRequest(digest=digest, sha256=sha256)
        chunks = [
            chunk.data async for chunk in call(request, metadata=self._metadata, timeout=PATIENCE_S)
        ]
        return b"".join(chunks)

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the worker ends the stream, whatever else comes before."""
        try:
            while await asyncio.wait_for(self.call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details() or ""

    def frame(
        self,
        frame_id: int = 1,
        boundary: int = 0,
        codec: str = "raw",
        *,
        named: str = "",
        **over: int,
    ) -> bytes:
        """`named` is what it says of its codec, if that is not the truth."""
        specs = self.model.boundaries[boundary]
        values = {s.name: np.ones(s.shape, s.numpy_dtype) for s in specs}
        tensors = encode_tensors(values, specs, codec_named(codec))
        fields = {"budget_ms": 0} | over
        return build_frame(
            id=frame_id, boundary=boundary, codec=named or codec, tensors=tensors, **fields
        )
