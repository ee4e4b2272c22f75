"""gRPC's server reflection: the protocol for tools that do not have it. It shows no model."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2
from splitpoint.proto.limits import SERVICE

from .abort import abort
from .ask import REQUEST_BYTES, REQUEST_S
from .visitors import Displaced, Visitors

MOST_ASKING = 8
NAMES = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
METHOD = "ServerReflectionInfo"


def add_reflection(server: grpc.aio.Server) -> None:
    """Lets anybody ask, a few at a time, and each for a few seconds."""
    servicer, visitors = reflection.aio.ReflectionServicer(NAMES), Visitors(MOST_ASKING)

    async def answer(context: Any) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            try:
                request = reflection_pb2.ServerReflectionRequest.FromString(data[:REQUEST_BYTES])
            except DecodeError:
                return
            async for reply in servicer.ServerReflectionInfo(_only(request), context):
                await context.write(reply.SerializeToString())

    async def info(_requests: Any, context: Any) -> None:
        try:
            await visitors.stay(context.peer(), answer(context), REQUEST_S)
        except (Displaced, asyncio.TimeoutError):
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "others want to ask")

    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(info)
    handler = grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {METHOD: method})
    server.add_generic_rpc_handlers((handler,))


async def _only(request: Any) -> Any:
    yield request
