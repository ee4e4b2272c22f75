"""Reading the one request of a call, from whoever may be slow, silent, or talk too much.

gRPC's own handlers of unary requests begin when the request is there, and wait for it for ever. So
every method here is a stream for gRPC; on the wire there is no difference.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from splitpoint.proto.address import host_of

from .abort import abort
from .visitors import Displaced, Visitors

REQUEST_S = 10.0
REQUEST_BYTES = 4096  # a digest, a name: nobody asks more
_M = TypeVar("_M", bound=Message)


def asker(context: Any) -> str:
    """Whose place a call takes that says nothing of its sender: that of its address."""
    peer: str = context.peer()
    return host_of(peer) or peer


async def read_request(context: Any, kind: type[_M], visitors: Visitors, who: str) -> _M:
    """The call's request, which `who` has to send now; otherwise the call ends with a status."""
    try:
        data = await visitors.stay(who, context.read(), REQUEST_S)
    except asyncio.TimeoutError:
        await abort(
            context, grpc.StatusCode.DEADLINE_EXCEEDED, f"no request came in {REQUEST_S:g} s"
        )
    except Displaced:
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "others wait to ask; ask again")
    if data is grpc.aio.EOF or len(data) > REQUEST_BYTES:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "that is no request")
    try:
        return kind.FromString(data)
    except DecodeError:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be parsed")
