"""What a method did not expect ends its call with INTERNAL; what it was, only the log says."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc

from .abort import Aborted, abort

log = logging.getLogger("splitpoint.cloud")

WORDS = "internal error; the worker's log says which"
_R = TypeVar("_R")
Method = Callable[[Any, Any, Any], Coroutine[Any, Any, _R]]


def mask_errors(method: Method[_R]) -> Method[_R]:
    """A service's method, `(self, requests, context)`, whose exceptions no client sees.

    gRPC itself tells a client their text, and paths stand in it.
    """

    @functools.wraps(method)
    async def run(self: Any, requests: Any, context: Any) -> _R:
        try:
            return await method(self, requests, context)
        except (grpc.aio.AbortError, Aborted):  # how the method ends a call
            raise
        except grpc.aio.InternalError:  # what gRPC says when the client has gone in the middle
            raise asyncio.CancelledError from None
        except Exception:
            log.exception("%s failed", method.__name__)
        await abort(context, grpc.StatusCode.INTERNAL, WORDS)

    return run
