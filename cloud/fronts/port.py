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

    It is first taken for ourselves alone: a port that processes of another worker share would be
    shared with them. Raises `ServeError` where it cannot be had.
    """
    host, port = split_address(listen)
    try:
        with _bound(host, port, shared=False) as alone:
            port = alone.getsockname()[1]
        return _bound(host, port, shared=True), join_address(host, port)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {listen}: {error.strerror or error}",
            "is the port in use? choose another with --listen HOST:PORT",
        ) from error


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    if host in _EVERYWHERE:  # gRPC listens on both families then, where there are two
        with contextlib.suppress(OSError):
            return _bound_to(socket.AF_INET6, ("::", port), shared=shared)
        return _bound_to(socket.AF_INET, ("0.0.0.0", port), shared=shared)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return _bound_to(found[0], found[4], shared=shared)


def _bound_to(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        # As gRPC does: connections that have just ended are no reason to wait.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        found.bind(address)
    except BaseException:
        found.close()
        raise
    return found
