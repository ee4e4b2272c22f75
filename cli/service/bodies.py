"""Bodies of requests: how many, how large, how slow they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from aiohttp import web
from splitpoint.proto.tasks import within

from .turned_down import TurnedDown, busy

MOST_BODY = 20_000_000  # bytes
# Of all requests that are here at a time: most have 0.1 to 0.5 MB, and a device has little memory.
MOST_REQUESTS, MOST_HELD = 32, 64_000_000
BEGIN_S, SLOWEST_S = 5.0, 30.0  # for the first bytes of a body, and for all
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Admission:
    """Counts the requests that are here, and the bytes that they hold."""

    def __init__(self) -> None:
        self.requests, self._held = 0, 0

    @contextmanager
    def admitted(self, request: web.BaseRequest) -> Iterator[None]:
        """Until it is answered. Raises `TurnedDown` where there is no room for its body."""
        nbytes = _size(request)
        if self.requests >= MOST_REQUESTS or self._held + nbytes > MOST_HELD:
            raise busy("too many requests at a time")
        self.requests += 1
        self._held += nbytes
        try:
            yield
        finally:
            self.requests -= 1
            self._held -= nbytes


async def read_begin(request: web.BaseRequest, enough: Callable[[bytearray], bool]) -> bytes:
    """The first bytes of a body, until they are `enough`, which may raise, or there are no more.

    Raises `TurnedDown` where they are compressed, or too slow.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TurnedDown(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without a Content-Encoding"
        )
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # this was no part of the answer
    return await _in_time(_read(request, bytearray(), enough), BEGIN_S)


async def read_body(request: web.BaseRequest, begin: bytes | None = None) -> bytes:
    """The whole body, of which `begin` was read before.

    Raises `TurnedDown` where it is too large, too slow, or nothing.
    """
    if begin is None:
        begin = await read_begin(request, lambda begin: True)
    found = await _in_time(_read(request, bytearray(begin), lambda found: False), SLOWEST_S)
    if not found:
        raise TurnedDown(HTTPStatus.BAD_REQUEST, "the body is empty: send a picture or an array")
    return found


async def _in_time(reading: Awaitable[bytes], seconds: float) -> bytes:
    try:
        return await within(seconds, reading)
    except asyncio.TimeoutError:
        raise TurnedDown(
            HTTPStatus.REQUEST_TIMEOUT, f"the body was not here within {seconds:g} s"
        ) from None


async def _read(
    request: web.BaseRequest, found: bytearray, enough: Callable[[bytearray], bool]
) -> bytes:
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > MOST_BODY:
            raise _too_large()
        if enough(found):
            break
    return bytes(found)


def _size(request: web.BaseRequest) -> int:
    """What the body will hold in memory: what it says, or the most where it does not say."""
    nbytes = MOST_BODY if request.content_length is None else request.content_length
    if nbytes > MOST_BODY:
        raise _too_large()
    return nbytes


def _too_large() -> TurnedDown:
    return TurnedDown(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MOST_BODY / 1e6:.0f} MB"
    )
