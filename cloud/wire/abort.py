"""Ending a call with a status, also that of a client which reads nothing."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
from splitpoint.proto.tasks import within

WAIT_S = 1.0


class Aborted(Exception):
    """What `context.abort` of a call raises that is not gRPC's; the status is set on the call."""


async def abort(context: Any, status: grpc.StatusCode, words: str) -> NoReturn:
    """Ends the call that `context` belongs to; call it from the call's own method.

    gRPC sends the status behind all that the client has not read yet. Where that does not move, or
    the client has gone, the method ends as if it was cancelled, and nothing here knows of the call
    any more; gRPC keeps its stream until the client resets it or the connection closes.
    """
    try:
        await within(WAIT_S, context.abort(status, words))
    except grpc.aio.AbortError:
        raise
    except (asyncio.TimeoutError, grpc.aio.InternalError):
        raise asyncio.CancelledError from None
    raise AssertionError("abort does not return")
