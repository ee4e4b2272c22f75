"""Reading the one request of a call and writing its one answer, whoever is at the other end.

He may be slow or silent, talk too much, or take nothing of what he asked for.

gRPC's own handlers of unary requests begin when the request is there, and wait for it for ever. So
every method here is a stream for gRPC; on the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from splitpoint.proto.address import host_of, household_of
from splitpoint.proto.status import NO_ROOM

from ..access.waiting_room import Displaced, WaitingRoom
from .abort import abort

REQUEST_S = 10.0
REQUEST_BYTES = 4096  # a digest, a name: nobody asks more
ANSWER_S = 30.0  # what is served, over a slow link
MOST_ANSWERED = 64  # whose answer is on its way
_M = TypeVar("_M", bound=Message)


def asker(context: Any) -> str:
    """Whose place a call takes that says nothing of its sender: that of its address, or network."""
    peer: str = context.peer()
    return household_of(host_of(peer)) or peer


async def read_request(context: Any, kind: type[_M], room: WaitingRoom, who: str) -> _M:
    """The call's request, which `who` has to send now; otherwise the call ends with a status."""
    try:
        data = await room.stay(who, context.read(), REQUEST_S)
    except asyncio.TimeoutError:
        await abort(
            context, grpc.StatusCode.DEADLINE_EXCEEDED, f"no request came in {REQUEST_S:g} s"
        )
    except Displaced:
        words = f"{NO_ROOM}: others wait to ask"
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, words)
    if data is grpc.aio.EOF or len(data) > REQUEST_BYTES:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "that is no request")
    try:
        return kind.FromString(data)
    except DecodeError:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be parsed")


class Answering:
    """Gives the answers of methods that have one, to so many callers at a time.

    By itself gRPC holds an answer until it is taken: HTTP/2 lets a client say that it takes none,
    and a few such connections would have all the calls that the worker may have.
    """

    def __init__(self) -> None:
        self._places = WaitingRoom(MOST_ANSWERED)

    def method(
        self, answer: Callable[[Any, Any], Awaitable[Message]]
    ) -> Callable[[Any, Any], Awaitable[None]]:
        """`answer(requests, context)` as a method that writes what that returns.

        It ends where that is not taken in time, or others need the place: the call then counts for
        nothing, and gRPC keeps the little that it has of it until the connection closes.
        """

        @functools.wraps(answer)
        async def run(requests: Any, context: Any) -> None:
            message = await answer(requests, context)
            try:
                await self._places.stay(asker(context), context.write(message), ANSWER_S)
            except (asyncio.TimeoutError, Displaced):
                raise asyncio.CancelledError from None  # a status would wait behind the answer
            except grpc.aio.InternalError:  # the caller has gone: gRPC would log it as an error
                raise asyncio.CancelledError from None

        return run
