"""The gRPC service: Describe, Fetch and Infer over the served models."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import CHUNK_BYTES, PROTOCOL, SERVICE
from splitpoint.proto.tasks import within

from ..access.access import Access, AccessError
from ..access.caller import Caller
from ..access.quotas import ClientUse, ClientUses, PlaceKeeper
from ..access.refusals import Refusal
from ..access.tokens import Client
from ..access.waiting_room import WaitingRoom
from ..compute.served_model import ServedModel
from ..frames.answers import load_of
from ..frames.services import StreamServices
from .abort import abort
from .mask_errors import mask_errors
from .stream import InferStream, serve_stream
from .unary import Answering, read_request

log = logging.getLogger("splitpoint.cloud")

PAUSE_S = 0.01
# Of all downloads together, what is read and not taken yet. Pieces are smaller where many load.
UNSENT_BYTES, LEAST_CHUNK_BYTES = 64 << 20, 16 << 10
MOST_ASKING = 64  # clients whose request is on its way


class SplitService:
    """The worker's methods; `device` is what clients are told that it computes on."""

    def __init__(
        self,
        services: StreamServices,
        device: str,
        access: Access,
        stream_places: PlaceKeeper,
        fetch_places: PlaceKeeper,
    ) -> None:
        self.services, self.device, self._access = services, device, access
        self._refusals = services.figures.refusals
        self.uses = ClientUses(self._refusals)
        self.stream_places, self.fetch_places = stream_places, fetch_places
        self._asking, self._answering = WaitingRoom(MOST_ASKING), Answering()
        self.open = False  # until then the models are being loaded
        self.streams: set[InferStream] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods as gRPC wants them.

        What comes is plain bytes: a message that cannot be parsed must cost its sender an error
        reply, and not everybody's stream. Requests are read by the methods themselves, once they
        know who asks.
        """
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Describe": grpc.stream_stream_rpc_method_handler(
                    self._answering.method(self.describe),
                    response_serializer=pb.DescribeReply.SerializeToString,
                ),
                "Fetch": grpc.stream_stream_rpc_method_handler(
                    self.fetch, response_serializer=pb.Chunk.SerializeToString
                ),
                "Infer": grpc.stream_stream_rpc_method_handler(self.infer),
            },
        )

    @mask_errors
    async def describe(self, _requests: Any, context: Any) -> pb.DescribeReply:
        """What this client may use; any version of the protocol may ask, to learn of ours."""
        client = await self._admit(context)
        await read_request(context, pb.DescribeRequest, self._asking, client.name)
        models = {
            digest: model
            for digest, model in self.services.models.items()
            if client.may_use(model.bundle.manifest.name, digest)
        }
        share = Caller(client=client, connection=context.peer()).share
        loads = {
            digest: load_of(self.services.engine, model, share, self.services.figures)
            for digest, model in models.items()
        }
        return pb.DescribeReply(
            protocol=PROTOCOL,
            server=f"splitpoint {version('splitpoint')}",
            models=[
                pb.ModelInfo(
                    name=model.bundle.manifest.name,
                    digest=digest,
                    manifest_bytes=model.manifest_bytes,
                    segment_ms=model.times.segment_ms,
                    device=self.device,
                    segment_p95_ms=model.times.segment_p95_ms,
                    decode=[
                        pb.DecodeTime(boundary=boundary, codec=codec, ms=ms)
                        for (boundary, codec), ms in model.times.decode_ms.items()
                    ],
                    load=loads[digest],
                )
                for digest, model in models.items()
            ],
            load=max(filter(None, loads.values()), key=lambda load: load.queue_ms, default=None),
        )

    @mask_errors
    async def fetch(self, _requests: Any, context: Any) -> None:
        """One file of a bundle in chunks, from the requested offset on."""
        client = await self._admit(context)
        request = await read_request(context, pb.FetchRequest, self._asking, client.name)
        model = self.services.models.get(request.digest)
        if model is not None and not client.may_use(model.bundle.manifest.name, request.digest):
            self._refusals.count(Refusal.MODEL)
            await abort(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"{client.name} may not use the model {model.bundle.manifest.name}",
            )
        path = None if model is None else model.file(request.sha256)
        if path is None:
            await abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                f"no file {request.sha256[:12]} in a bundle {request.digest[:12]} here",
            )
        try:
            async with self.fetch_places.taken(client):
                await self._send_file(path, request.offset, context)
                return
        except AccessError as error:
            await self._refuse(context, error)
        except OSError as error:  # as of a share that is away, or a bundle that was moved
            log.warning("%s cannot be sent: %s", path, error.strerror or error)
        await abort(
            context,
            grpc.StatusCode.UNAVAILABLE,
            f"the file {request.sha256[:12]} cannot be read here now; try another worker",
        )

    async def _send_file(self, path: Path, offset: int, context: Any) -> None:
        with path.open("rb") as stream:
            total = os.fstat(stream.fileno()).st_size
            if offset > total:
                await abort(
                    context,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"offset {offset} lies beyond the file's {total} bytes",
                )
            stream.seek(offset)
            while data := await asyncio.to_thread(stream.read, self._chunk_bytes()):
                chunk = pb.Chunk(offset=offset, total=total, data=data)
                try:
                    await within(self.services.limits.idle_s, context.write(chunk))
                except asyncio.TimeoutError:
                    self._refusals.count(Refusal.STALLED_FETCH)
                    await abort(
                        context,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        f"nothing was read for {self.services.limits.idle_s:g} s",
                    )
                offset += len(data)

    def _chunk_bytes(self) -> int:
        share = UNSENT_BYTES // max(len(self.fetch_places), 1)
        return max(min(CHUNK_BYTES, share), LEAST_CHUNK_BYTES)

    @mask_errors
    async def infer(self, _requests: Any, context: Any) -> None:
        """One stream of frames."""
        client = await self._admit(context)
        if self.services.draining.worker:
            self._refusals.count(Refusal.STOPPING)
            await abort(context, grpc.StatusCode.UNAVAILABLE, "the worker is stopping")
        try:
            async with self.stream_places.taken(client):
                with self.uses.of(client) as use:
                    await self._serve_stream(use, context)
        except AccessError as error:
            await self._refuse(context, error)

    async def _serve_stream(self, use: ClientUse, context: Any) -> None:
        end = await serve_stream(context, self.services, use, self.streams)
        if end is not None:
            await abort(context, *end)

    async def _admit(self, context: Any) -> Client:
        """Who is calling; the call ends here for who is not let in, or comes too early."""
        if not self.open:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "the worker is loading its models")
        try:
            return self._access.client(
                context.invocation_metadata() or (), context.auth_context(), context.peer()
            )
        except AccessError as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Any, error: AccessError) -> NoReturn:
        self._refusals.count(error.reason)
        log.info("%s is refused: %s", context.peer(), error)
        await abort(context, error.status, str(error))

    async def drain(self, grace_s: float, *, reopen: bool = False) -> None:
        """Takes nothing new, tells every client, and waits until all frames are answered.

        With `reopen`, another worker is to be had at the same address.
        """
        self.services.draining.worker = True
        await self._drained(lambda stream: True, grace_s, reopen=reopen)

    async def withdraw(self, model: ServedModel, grace_s: float) -> None:
        """The same for the streams of one model, which are then ended."""
        self.services.draining.models.add(model)
        await self._drained(lambda stream: stream.model is model, grace_s)
        while streams := [stream for stream in self.streams if stream.model is model]:
            for stream in streams:
                stream.end()
            await asyncio.sleep(PAUSE_S)
        self.services.draining.models.discard(model)

    async def _drained(
        self, concerned: Callable[[InferStream], bool], grace_s: float, *, reopen: bool = False
    ) -> None:
        for stream in filter(concerned, self.streams):
            stream.send_draining(int(1e3 * grace_s), reopen=reopen)
        deadline = asyncio.get_running_loop().time() + grace_s
        while any(stream.session.unanswered for stream in filter(concerned, self.streams)):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(PAUSE_S)
