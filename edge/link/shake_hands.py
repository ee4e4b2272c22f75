"""How a stream begins, and what its end says."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import parse_server
from splitpoint.proto.status import ProtocolError, error_of_call


async def shake_hands(call: Any, server: str, hello: pb.Hello) -> pb.Welcome:
    """The worker's answer to `hello`; raises what the wire does, or why the worker refuses."""
    try:
        await call.write(pb.ClientMessage(hello=hello).SerializeToString())
        data = await call.read()
        if data is grpc.aio.EOF:
            await raise_end(call, server)
        message = parse_server(data)
    except grpc.RpcError as error:
        raise error_of_call(error, server) from error
    except asyncio.InvalidStateError:
        await raise_end(call, server)
    if message.WhichOneof("kind") != "welcome" or message.welcome.credits < 1:
        raise ProtocolError(f"{server} did not answer Hello with Welcome")
    return message.welcome


async def raise_end(call: Any, server: str) -> NoReturn:
    """Raises what the ended call says of its end."""
    code, details = await call.code(), await call.details()
    raise error_of_call(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details),
        server,
    )
