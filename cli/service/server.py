"""The HTTP server: its socket, and what bounds connections, headers, and slow clients."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from splitpoint.edge.errors import AgentError
from splitpoint.proto.address import join_address, split_address
from splitpoint.proto.tasks import within

from .turned_down import error_response

log = logging.getLogger("splitpoint.http")

MOST_CONNECTIONS, BACKLOG = 128, 64
IDLE_S = 20.0  # without a whole request, its headers included
LINGER_S = 2.0  # for what a client goes on sending that has its answer
SEND_S = 20.0  # for an answer that the client does not read
SHUTDOWN_S = 10.0  # for requests that are under way
# A browser's cookies and headers take 1 to 2 kB.
LIMITS: dict[str, Any] = {"max_line_size": 4096, "max_field_size": 4096, "max_headers": 64}
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, a browser hides where a form came from
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "splitpoint",
}

AnswerRequest = Callable[[web.BaseRequest], Awaitable[web.Response]]


def bound_socket(listen: str) -> socket.socket:
    """A socket at HOST:PORT that does not listen yet; port 0 is any free one.

    Raises `AgentError` for an address that is in use or none of this machine's, and `AddressError`
    for what is no address.
    """
    host, port = split_address(listen)
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # Where a name is both, IPv4: a client that knows one address only tries this one.
        family, kind, protocol, _, address = min(found, key=lambda each: each[0])
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise AgentError(f"--http cannot listen on {listen}: {why}", "give another address") from (
            error
        )
    return sock


def address_of(sock: socket.socket) -> str:
    """`HOST:PORT` of what is bound."""
    host, port = sock.getsockname()[:2]
    return join_address(host, port)


class HttpServer:
    """Gives each request to `answers`, which must not raise; everything else is bounded here."""

    def __init__(self, sock: socket.socket, answers: AnswerRequest) -> None:
        self._socket, self._answers = sock, answers
        self._server: asyncio.Server | None = None
        self._requests: web.Server | None = None
        self.answered: Counter[int] = Counter()  # by status

    async def start(self) -> None:
        """Listens. Raises `AgentError` where another process came first."""
        loop = asyncio.get_running_loop()
        # A request whose client goes away is cancelled: nobody waits for its answer.
        self._requests = requests = web.Server(self._answer, handler_cancellation=True)

        def connection() -> asyncio.Protocol:
            if len(requests.connections) >= MOST_CONNECTIONS:
                return _Full()
            return _Connection(
                requests,
                loop=loop,
                keepalive_timeout=IDLE_S,
                lingering_time=LINGER_S,
                access_log=None,  # type: ignore[arg-type]  # aiohttp takes it for none
                auto_decompress=False,
                **LIMITS,
            )

        try:
            self._server = await loop.create_server(connection, sock=self._socket, backlog=BACKLOG)
        except OSError as error:
            raise AgentError(
                f"--http cannot listen on {address_of(self._socket)}: {error.strerror or error}",
                "give another address",
            ) from error

    async def close(self) -> None:
        """Takes no more requests, and gives those that are under way some seconds."""
        server, self._server = self._server, None
        if server is not None and self._requests is not None:
            server.close()
            self._requests.pre_shutdown()
            await self._requests.shutdown(SHUTDOWN_S)
            await server.wait_closed()
        self._socket.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answers(request)
        self.answered[response.status] += 1
        for name, value in ALWAYS.items():
            response.headers.setdefault(name, value)
        await response.prepare(request)
        try:
            await within(SEND_S, response.write_eof())
        except asyncio.TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response


class _Connection(web.RequestHandler):
    """What is no HTTP gets an answer of the same form as everything else, and no traceback."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be read."""
        log.info("a request that cannot be read (%s)", type(exc).__name__)
        lines = (message or "it cannot be read").splitlines()
        response = error_response(status, f"no HTTP request: {lines[0] if lines else ''}")
        response.headers.update(ALWAYS)
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    """For a connection too many: it is told so, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        with suppress(OSError):
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: 54\r\n\r\n"
                b'{"success": false, "error": "too many connections"}   '
            )
        transport.close()
