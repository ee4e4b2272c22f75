"""A gRPC server with the worker's methods, at the address where clients reach it."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from splitpoint.proto.address import split_address
from splitpoint.proto.limits import server_options

from ..brief_log import keep_log_brief
from ..errors import ServeError

LAST_ANSWERS_S = 1.0  # for those that are on their way when all is drained


def new_server(
    handlers: Sequence[grpc.GenericRpcHandler],
    most_bytes: int,
    streams_per_client: int,
    *,
    reflection: bool,
    shares_port: bool = False,
) -> grpc.aio.Server:
    """Takes messages of up to `most_bytes`; with `shares_port` others may listen beside it."""
    # Without a limit for all calls: gRPC counts those, too, whose clients do not let their
    # answers through, for as long as their connections last. Each method has its own places.
    server = grpc.aio.server(
        options=server_options(most_bytes, streams_per_client, shares_port=shares_port)
    )
    keep_log_brief()
    server.add_generic_rpc_handlers(tuple(handlers))
    if reflection:
        from .reflection import Reflection  # only the cloud extra brings it

        server.add_generic_rpc_handlers((Reflection().handler(),))
    return server


def listen_at(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> str:
    """HOST:PORT where clients reach it, or a socket's file. Raises `ServeError`, `AddressError`."""
    is_file = address.startswith("unix:")
    if not is_file:
        split_address(address)  # gRPC takes 99999 for a port, and listens on another one
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ServeError(
            f"cannot listen on {address}",
            "is the port in use? choose another with --listen HOST:PORT",
        ) from error
    return address if is_file else f"{address.rpartition(':')[0]}:{port}"
