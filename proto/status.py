"""Statuses and exceptions: the one table, used by both ends.

`RemoteError` means that this frame was refused or failed at the worker; `UnreachableError` that no
answer can come; `RefusedError` that the worker will not talk to this client at all, or this client
must not talk to it; `ProtocolError` that the peer broke the protocol.
"""

from __future__ import annotations

from splitpoint.codec import SplitpointError

from ..proto import splitpoint_pb2 as pb
from .printable import printable


class WireError(SplitpointError):
    """Anything that goes wrong between edge and cloud."""


class UnreachableError(WireError):
    """There is no worker at the address, or the connection to it was lost."""


class NotYetValidError(UnreachableError):
    """By this device's clock, which may be wrong, the worker's certificate is not valid yet."""


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


# How a worker begins to say that others have its places, of streams or to ask. gRPC has the same
# status for a message that is too large, which no later time makes smaller.
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


def first_line(text: str, most: int) -> str:
    """The first line of what the other end says, as a terminal and a log can take it.

    `most` characters of it at most.
    """
    return printable(text[:most].partition("\n")[0], most)


def error_of_reply(status: pb.Status, reason: str) -> RemoteError:
    """The exception for a reply that is not OK (an unknown status counts as a failed frame)."""
    name = pb.Status.Name(status) if status in EXCEPTIONS else status
    error = EXCEPTIONS.get(status, FrameFailedError)(
        f"the worker answered {name}: {first_line(reason, 300)}"
    )
    error.status = status
    return error
