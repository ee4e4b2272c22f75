"""Statuses and exceptions: the one table, used by both ends.

A caller never sees gRPC's types. `RemoteError` means that this frame was refused or failed at the
worker; `UnreachableError` that no answer can come; `RefusedError` that the worker will not talk to
this client at all, or this client must not talk to it; `ProtocolError` that the peer broke the
protocol.
"""

from __future__ import annotations

import grpc
from splitpoint.codec import SplitpointError

from ..proto import splitpoint_pb2 as pb
from .printable import printable
from .proxy import proxy_of


class WireError(SplitpointError):
    """Anything that goes wrong between edge and cloud."""


class UnreachableError(WireError):
    """There is no worker at the address, or the connection to it was lost."""


class RefusedError(WireError):
    """The worker refuses this client: another protocol version, an unknown model or digest."""


class UnauthenticatedError(RefusedError):
    """One end cannot prove to the other who it is: a token or a certificate that is not accepted.

    Trying again changes nothing until somebody changes a file.
    """


class PermissionDeniedError(RefusedError):
    """The worker knows this client, and does not let it use the model."""


class ProtocolError(WireError):
    """The peer sent something that the protocol does not allow."""


class RemoteError(WireError):
    """The worker answered one frame with an error."""

    status: pb.Status = pb.INTERNAL


class FrameRejectedError(RemoteError):
    """The frame is not one that the worker can use; sending it again changes nothing."""


class FrameCorruptError(RemoteError):
    """The frame was damaged on the way; sending it again may work."""

    status = pb.CORRUPT


class FrameExpiredError(RemoteError):
    """The frame's budget ran out."""

    status = pb.EXPIRED


class KeyFrameNeededError(RemoteError):
    """The frame builds on one that the worker does not have; coded as a key frame it will do."""

    status = pb.KEY_FRAME


class OverloadedError(RemoteError):
    """The worker has no room, or is about to stop; another worker or a later time may do."""

    status = pb.OVERLOADED


class FrameCancelledError(RemoteError):
    """The frame was cancelled by its sender."""

    status = pb.CANCELLED


class FrameFailedError(RemoteError):
    """Computing this frame failed at the worker."""


# How a worker begins to say that it has too many streams. gRPC has the same status for a message
# that is too large, which no later time makes smaller.
NO_ROOM = "no room"

EXCEPTIONS: dict[pb.Status, type[RemoteError]] = {
    pb.MALFORMED: FrameRejectedError,
    pb.CORRUPT: FrameCorruptError,
    pb.OUT_OF_RANGE: FrameRejectedError,
    pb.MISMATCH: FrameRejectedError,
    pb.TOO_LARGE: FrameRejectedError,
    pb.UNKNOWN_CODEC: FrameRejectedError,
    pb.UNDECODABLE: FrameRejectedError,
    pb.EXPIRED: FrameExpiredError,
    pb.OVERLOADED: OverloadedError,
    pb.CANCELLED: FrameCancelledError,
    pb.STOPPING: OverloadedError,
    pb.INTERNAL: FrameFailedError,
    pb.KEY_FRAME: KeyFrameNeededError,
}


def _line(text: str, most: int) -> str:
    """The first line of what the other end says, as a terminal and a log can take it."""
    return printable(text[:most].partition("\n")[0], most)


def error_of_reply(status: pb.Status, reason: str) -> RemoteError:
    """The exception for a reply that is not OK (an unknown status counts as a failed frame)."""
    known = status in EXCEPTIONS
    error = EXCEPTIONS.get(status, FrameFailedError)(
        f"the worker answered {pb.Status.Name(status) if known else status}: {_line(reason, 300)}"
    )
    error.status = status
    return error


_REFUSED: dict[grpc.StatusCode, tuple[type[RefusedError], str]] = {
    grpc.StatusCode.FAILED_PRECONDITION: (RefusedError, ""),
    grpc.StatusCode.NOT_FOUND: (RefusedError, ""),
    grpc.StatusCode.UNAUTHENTICATED: (UnauthenticatedError, ""),
    grpc.StatusCode.PERMISSION_DENIED: (PermissionDeniedError, ""),
    grpc.StatusCode.UNIMPLEMENTED: (
        RefusedError,
        "is it a splitpoint worker? start one with `splitpoint serve`",
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (RefusedError, ""),
}

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


def error_of_call(error: grpc.RpcError, server: str) -> WireError:
    """The exception for a failed call to `server`."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    said = (error.details() if hasattr(error, "details") else None) or ""
    details = _line(said, 400)
    if code in _REFUSED:
        kind, remedy = _REFUSED[code]
        return kind(f"{server} refuses: {details}", remedy)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _unreachable(server, said, details or code.name.lower())
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.startswith(NO_ROOM):
        return UnreachableError(f"{server} takes no more: {details[:200]}", "try again later")
    return ProtocolError(f"the call to {server} ended with {code.name}: {details[:200]}")


def _unreachable(server: str, said: str, details: str) -> WireError:
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
