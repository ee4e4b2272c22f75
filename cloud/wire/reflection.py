"""gRPC's server reflection: the protocol for tools that do not have it. It shows no model."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2
from splitpoint.proto.limits import SERVICE

from ..access.waiting_room import Displaced, WaitingRoom
from .abort import abort
from .mask_errors import mask_errors
from .unary import REQUEST_BYTES, REQUEST_S, asker

MOST_ASKING = 8
NAMES = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
METHOD = "ServerReflectionInfo"


class Reflection:
    """Anybody may ask, a few at a time, and each for a few seconds."""

    def __init__(self) -> None:
        self._servicer = reflection.aio.ReflectionServicer(NAMES)
        self.asking = WaitingRoom(MOST_ASKING)

    def handler(self) -> grpc.GenericRpcHandler:
        """The method as gRPC wants it."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self.info)
        return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {METHOD: method})

    @mask_errors
    async def info(self, _requests: Any, context: Any) -> None:
        """Answers one question after the other."""
        try:
            await self.asking.stay(asker(context), self._answer(context), REQUEST_S)
        except Displaced:
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "others want to ask")
        except asyncio.TimeoutError:
            await abort(
                context, grpc.StatusCode.DEADLINE_EXCEEDED, f"{REQUEST_S:g} s are over; ask again"
            )

    async def _answer(self, context: Any) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            try:
                request = reflection_pb2.ServerReflectionRequest.FromString(data[:REQUEST_BYTES])
            except DecodeError:
                return
            async for reply in self._servicer.ServerReflectionInfo(_only(request), context):
                await context.write(reply.SerializeToString())


async def _only(request: Any) -> Any:
    yield request
