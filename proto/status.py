"""Statuses and exceptions: the one table, used by both ends.

A caller never sees gRPC's types. `RemoteError` means that this frame was refused or failed at the
worker; `UnreachableError` that no answer can come; `RefusedError` that the worker will not talk to
this client at all; `ProtocolError` that the peer broke the protocol.
"""

from __future__ import annotations

import grpc
from splitpoint.codec import SplitpointError

from . import splitpoint_pb2 as pb


class WireError(SplitpointError):
    """Anything that goes wrong between edge and cloud."""


class UnreachableError(WireError):
    """There is no worker at the address, or the connection to it was lost."""


class RefusedError(WireError):
    """The worker refuses this client: another protocol version, an unknown model or digest."""


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


class CancelledError(RemoteError):
    """The frame was cancelled by its sender."""

    status = pb.CANCELLED


class FrameFailedError(RemoteError):
    """Computing this frame failed at the worker."""


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
    pb.CANCELLED: CancelledError,
    pb.STOPPING: OverloadedError,
    pb.INTERNAL: FrameFailedError,
    pb.KEY_FRAME: KeyFrameNeededError,
}


def error_of_reply(status: pb.Status, reason: str) -> RemoteError:
    """The exception for a reply that is not OK (an unknown status counts as a failed frame)."""
    known = status in EXCEPTIONS
    error = EXCEPTIONS.get(status, FrameFailedError)(
        f"the worker answered {pb.Status.Name(status) if known else status}: {reason[:300]}"
    )
    error.status = status
    return error


_REFUSED = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
}


def error_of_call(error: grpc.RpcError, server: str) -> WireError:
    """The exception for a failed call to `server`."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = (error.details() if hasattr(error, "details") else None) or ""
    if code in _REFUSED:
        remedy = ""
        if code is grpc.StatusCode.UNIMPLEMENTED:
            remedy = "is it a splitpoint worker? start one with `splitpoint serve`"
        return RefusedError(f"{server} refuses: {details[:400]}", remedy)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        reason = details.splitlines()[0][:200] if details else code.name.lower()
        return UnreachableError(
            f"no worker answers at {server} ({reason})",
            "start one with `splitpoint serve NAME.split`, or check --server and the network",
        )
    return ProtocolError(f"the call to {server} ended with {code.name}: {details[:200]}")
