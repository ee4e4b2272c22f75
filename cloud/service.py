"""The gRPC service: Describe, Fetch and Infer over the served models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from splitpoint.partition.bundle import MANIFEST
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import CHUNK_BYTES, PROTOCOL, SERVICE

from .engine import Engine
from .quarantine import Quarantine
from .request import ServedModel
from .stream import InferStream


class SplitService:
    """The worker's methods. `models` are by bundle digest."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        engine: Engine,
        decoders: Executor,
        device: str,
    ) -> None:
        self._models, self._engine, self._decoders = models, engine, decoders
        self._device = device
        self._quarantine = Quarantine()
        self._draining = False
        self._streams: set[InferStream] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods as gRPC wants them.

        `Infer` moves plain bytes: a message that cannot be parsed must cost its sender an error
        reply, and not everybody's stream.
        """
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Describe": grpc.unary_unary_rpc_method_handler(
                    self.describe,
                    request_deserializer=pb.DescribeRequest.FromString,
                    response_serializer=pb.DescribeReply.SerializeToString,
                ),
                "Fetch": grpc.unary_stream_rpc_method_handler(
                    self.fetch,
                    request_deserializer=pb.FetchRequest.FromString,
                    response_serializer=pb.Chunk.SerializeToString,
                ),
                "Infer": grpc.stream_stream_rpc_method_handler(self.infer),
            },
        )

    async def describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeReply:
        """What is served; the protocol version is in the answer, so any client may ask."""
        return pb.DescribeReply(
            protocol=PROTOCOL,
            server=f"splitpoint {version('splitpoint')}",
            models=[
                pb.ModelInfo(
                    name=model.bundle.manifest.name,
                    digest=digest,
                    manifest_bytes=model.bundle.path(MANIFEST).stat().st_size,
                    segment_ms=model.times.segment_ms,
                    device=self._device,
                    segment_p95_ms=model.times.segment_p95_ms,
                    decode=[
                        pb.DecodeTime(boundary=boundary, codec=codec, ms=ms)
                        for (boundary, codec), ms in model.times.decode_ms.items()
                    ],
                )
                for digest, model in self._models.items()
            ],
            load=self._engine.load(),
        )

    async def fetch(self, request: pb.FetchRequest, context: Any) -> AsyncIterator[pb.Chunk]:
        """One file of a bundle in chunks, from the requested offset on."""
        path = self._file(request)
        if path is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no file {request.sha256[:12]} in a bundle {request.digest[:12]} here",
            )
            raise AssertionError  # abort does not return
        with path.open("rb") as stream:
            total = path.stat().st_size
            offset = request.offset
            if offset > total:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"offset {offset} lies beyond the file's {total} bytes",
                )
            stream.seek(offset)
            while data := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                yield pb.Chunk(offset=offset, total=total, data=data)
                offset += len(data)

    async def infer(self, _requests: Any, context: Any) -> None:
        """One stream of frames."""
        if self._draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the worker is stopping")
        stream = InferStream(
            context,
            self._models,
            self._engine,
            self._decoders,
            self._quarantine,
            lambda: self._draining,
        )
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)

    async def drain(self, grace_s: float) -> None:
        """Takes nothing new, tells every client, and waits until all frames are answered."""
        self._draining = True
        for stream in self._streams:
            stream.send_draining(int(1e3 * grace_s))
        deadline = asyncio.get_running_loop().time() + grace_s
        while any(stream.unanswered for stream in self._streams):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)

    def _file(self, request: pb.FetchRequest) -> Path | None:
        model = self._models.get(request.digest)
        if model is None:
            return None
        if request.sha256 == request.digest:
            return model.bundle.path(MANIFEST)
        files = model.bundle.manifest.files
        path = next((path for path, file in files.items() if file.sha256 == request.sha256), None)
        return None if path is None else model.bundle.path(path)
