"""A port that several processes of one worker listen on, and no other worker."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from splitpoint.proto.address import join_address, split_address

from ..errors import ServeError

_EVERYWHERE = ("", "0.0.0.0", "::")


def hold_port(listen: str) -> tuple[socket.socket, str]:
    """A socket that keeps a port without listening, and HOST:PORT with that port.

    Nobody else can have the port from here on, whether processes of this worker listen there yet,
    or still. Raises `ServeError` where it cannot be had.
    """
    host, port = split_address(listen)
    try:
        if not port:
            with _bound(host, 0) as any_free:
                port = any_free.getsockname()[1]
        held = _bound(host, port)
        try:
            _share(held)
        except BaseException:
            held.close()
            raise
        return held, join_address(host, port)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {listen}: {error.strerror or error}",
            "is the port in use? choose another with --listen HOST:PORT",
        ) from error


def _share(held: socket.socket) -> None:
    """Lets those share the port that share ports, and of them only this user's: our processes.

    That another worker holds the port shows only when one listens, and then it is refused to that
    one: of sockets that do not listen, Linux lets all that "reuse" an address have the same one.
    So this one listens, which it can only alone; then it "reuses" no more, and stops listening.
    Clients that come in that moment are hung up on.
    """
    held.listen()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.shutdown(socket.SHUT_RDWR)


def _bound(host: str, port: int) -> socket.socket:
    if host in _EVERYWHERE:  # gRPC listens on both families then, where there are two
        with contextlib.suppress(OSError):
            return _bound_to(socket.AF_INET6, ("::", port))
        return _bound_to(socket.AF_INET, ("0.0.0.0", port))
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return _bound_to(found[0], found[4])


def _bound_to(family: int, address: tuple[Any, ...]) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        # As gRPC does: connections that have just ended are no reason to wait.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except BaseException:
        found.close()
        raise
    return found
