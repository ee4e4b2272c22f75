"""What a failed call means: a caller never sees gRPC's types."""

from __future__ import annotations

from datetime import datetime, timezone

import grpc
from splitpoint.proto.proxy import proxy_of
from splitpoint.proto.status import (
    NO_ROOM,
    NotYetValidError,
    PermissionDeniedError,
    ProtocolError,
    RefusedError,
    UnauthenticatedError,
    UnreachableError,
    WireError,
    first_line,
)

_REFUSED: dict[grpc.StatusCode, tuple[type[RefusedError], str]] = {
    grpc.StatusCode.FAILED_PRECONDITION: (RefusedError, ""),
    grpc.StatusCode.NOT_FOUND: (RefusedError, ""),
    grpc.StatusCode.UNAUTHENTICATED: (UnauthenticatedError, ""),
    grpc.StatusCode.PERMISSION_DENIED: (PermissionDeniedError, ""),
    grpc.StatusCode.INVALID_ARGUMENT: (RefusedError, ""),
}

# CANCELLED, since no worker says it of a call: it is what remains of a stream whose end has gone.
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

# A handshake that fails is UNAVAILABLE to gRPC, as a lost network is. These words of BoringSSL and
# gRPC tell them apart; where they change, the error is the general one, with its remedy.
_TLS_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not from the authority in --tls-ca, or has expired",
        "give the CA that signed the worker's certificate",
    ),
    (
        "Hostname Verification Check failed",
        "its certificate is for other names than this address",
        "use a name that the certificate holds, or make one with this address",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "it does not speak TLS",
        "start it with --tls-cert and --tls-key, or leave out --tls-ca",
    ),
    (
        "ALERT",
        "it does not accept this device's certificate",
        "give --tls-cert and --tls-key from the worker's --client-ca",
    ),
)


_NOT_YET_VALID = "certificate is not yet valid"  # BoringSSL's words

# gRPC's word for a stream that the other end, or what stands in between, has reset, as it is when a
# worker restarts. A worker that ends a call with INTERNAL itself says what failed.
_RESET = "RST_STREAM"


def error_of_call(error: grpc.RpcError, server: str) -> WireError:
    """The exception for a failed call to `server`."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    said = (error.details() if hasattr(error, "details") else None) or ""
    details = first_line(said, 400)
    if code in _REFUSED:
        kind, remedy = _REFUSED[code]
        return kind(f"{server} refuses: {details}", remedy)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        # A proxy's or a hotspot's page is no gRPC either, and what answers so may go away.
        return UnreachableError(
            f"what answers at {server} is no splitpoint worker: {details}",
            "start one with `splitpoint serve`, or check --server and the network",
        )
    if code in _AWAY or (code is grpc.StatusCode.INTERNAL and _RESET in said):
        return _unreachable(server, said, details or code.name.lower())
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.startswith(NO_ROOM):
        return UnreachableError(f"{server} takes no more: {details[:200]}", "try again later")
    return ProtocolError(f"the call to {server} ended with {code.name}: {details[:200]}")


def _unreachable(server: str, said: str, details: str) -> WireError:
    if _NOT_YET_VALID in said:
        now = datetime.now(timezone.utc)
        return NotYetValidError(
            f"the certificate of {server} is not valid yet at {now:%Y-%m-%d %H:%M} UTC, as this "
            "device's clock says",
            "set the clock; until then it is tried again",
        )
    proxy = proxy_of(server)
    through = "" if proxy is None else f" through {proxy}"
    for words, what, remedy in _TLS_FAILURES:
        if words in said:
            why = f"no trust between {server} and this end{through}: {what}"
            return UnauthenticatedError(why, remedy)
    if "Socket closed" in said:  # one that demands TLS, or a certificate, says no more
        return UnreachableError(
            f"{server} closes the connection{through}",
            "where it demands TLS or a certificate, give --tls-ca, --tls-cert and --tls-key; "
            "else check --server and the worker",
        )
    remedy = "start one with `splitpoint serve NAME.split`, or check --server and the network"
    if proxy is not None:
        remedy = f"check the proxy, or name the worker's host in no_proxy; or {remedy}"
    return UnreachableError(f"no worker answers at {server}{through} ({details[:200]})", remedy)
