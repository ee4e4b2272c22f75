"""Where programs of this machine ask how a worker is: HTTP, JSON, and nobody else.

`/healthz` says whether it takes frames, `/stats` what it does, and a page may be given to look at
that. It answers on the worker's event
loop: one that stands still does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from splitpoint.partition.strict_json import to_json
from splitpoint.proto.address import is_loopback, is_own_host, join_address, split_address

from .errors import ServeError
from .options import HttpFile
from .stats import WorkerStats

log = logging.getLogger("splitpoint.cloud")

MOST_CONNECTIONS = 32
LIFE_S = 10.0  # of a connection, whatever it does or does not
SHUTDOWN_S = 2.0  # for answers that are under way
LIMITS: dict[str, Any] = {
    "max_line_size": 4096,
    "max_field_size": 4096,
    "max_headers": 64,
    "auto_decompress": False,
    "access_log": None,
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "splitpoint",
}


def check_http(listen: str) -> None:
    """Raises `ServeError` where others could ask, `AddressError` for what is no address."""
    split_address(listen)
    if not is_loopback(listen):
        raise ServeError(
            f"other machines reach --http {listen}, and nothing says who may ask",
            "listen on 127.0.0.1; for figures elsewhere there is --metrics",
        )


@asynccontextmanager
async def answering(
    listen: str, stats: WorkerStats, pages: Mapping[str, HttpFile] | None = None
) -> AsyncIterator[str]:
    """Answers while it is entered, at the HOST:PORT that it gives; port 0 is any free one.

    `pages` are given for other paths.

    Raises what `check_http` raises, and `ServeError` for a port that is in use.
    """
    check_http(listen)
    host, port = split_address(listen)
    requests = web.Server(_Answers(stats, pages or {}).answer, handler_cancellation=True)

    def connection() -> asyncio.Protocol:
        if len(requests.connections) >= MOST_CONNECTIONS:
            return _Full()
        return _Connection(
            requests,
            loop=asyncio.get_running_loop(),
            **LIMITS,
        )

    try:
        server = await asyncio.get_running_loop().create_server(connection, host, port)
    except OSError as error:
        why = error.strerror or str(error)
        raise ServeError(
            f"--http cannot listen on {listen}: {why}", "give another --http HOST:PORT"
        ) from error
    try:
        yield join_address(host, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        requests.pre_shutdown()
        await requests.shutdown(SHUTDOWN_S)
        await server.wait_closed()


class _Answers:
    def __init__(self, stats: WorkerStats, pages: Mapping[str, HttpFile]) -> None:
        self._stats, self._pages = stats, pages
        self._paths = {"/healthz", "/stats", *pages}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        refused = _refused(request, self._paths)
        page = self._pages.get(request.path)
        if refused is None and page is not None:
            policy = {"Content-Security-Policy": page.policy}
            response = web.Response(
                body=page.content, content_type=page.content_type, charset="utf-8",
                headers=HEADERS | policy,
            )  # fmt: skip
        else:
            status, document = await self._document(request, refused)
            response = web.Response(
                status=status, text=to_json(document), content_type="application/json",
                headers=HEADERS,
            )  # fmt: skip
        response.force_close()
        return response

    async def _document(
        self, request: web.BaseRequest, refused: HTTPStatus | None
    ) -> tuple[HTTPStatus, object]:
        if refused is not None:
            return refused, {"error": refused.phrase}
        if request.path == "/healthz":
            serving = self._stats.is_serving
            status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
            return status, {"status": "ok" if serving else "not serving"}
        return HTTPStatus.OK, await self._stats.to_json()


def _refused(request: web.BaseRequest, paths: Collection[str]) -> HTTPStatus | None:
    """What another site makes a browser ask, by its own name or by one that leads here, is not.

    A link on another site may open the page itself.
    """
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not is_own_host(hosts[0]):
        return HTTPStatus.MISDIRECTED_REQUEST
    origin = request.headers.get("Origin")
    opens_page = request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    own = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if not (own or opens_page) or (
        origin is not None and origin.partition("://")[2].lower() != hosts[0].lower()
    ):
        return HTTPStatus.FORBIDDEN
    if request.path not in paths:
        return HTTPStatus.NOT_FOUND
    return None if request.method in ("GET", "HEAD") else HTTPStatus.METHOD_NOT_ALLOWED


class _Connection(web.RequestHandler):
    """For one request."""

    __slots__ = ("_ending",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        abort = cast(asyncio.Transport, transport).abort  # uvloop has classes of its own
        self._ending = asyncio.get_running_loop().call_later(LIFE_S, abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ending.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP gets an answer like all others, and no traceback fills the log for it."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a question over HTTP has no answer", exc_info=exc)
        document = {"error": HTTPStatus(status).phrase}
        response = web.Response(
            status=status, text=to_json(document), content_type="application/json", headers=HEADERS
        )
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
