"""Ending a call with a status, also that of a client which reads nothing."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc

WAIT_S = 1.0


async def abort(context: Any, status: grpc.StatusCode, words: str) -> NoReturn:
    """Ends the call that `context` belongs to; call it from the call's own method.

    gRPC sends the status behind all that the client has not read yet. Where that does not move, the
    method ends as if it was cancelled: gRPC then gives the call up and resets its stream.
    """
    try:
        await asyncio.wait_for(context.abort(status, words), WAIT_S)
    except asyncio.TimeoutError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort does not return")
