"""What the device's end of a stream tells its caller."""

from __future__ import annotations

from typing import NamedTuple

from .answer_times import Answer


class Granted(NamedTuple):
    """The frame has its credit: `build` it now."""

    id: int


class Answered(NamedTuple):
    """The frame's outcome: the worker has computed it."""

    id: int
    answer: Answer


class Failed(NamedTuple):
    """The outcome of a frame, or of a probe: a `RemoteError`, or `UnreachableError`."""

    id: int
    error: Exception


class Echoed(NamedTuple):
    """The probe came back."""

    id: int


class Returned(NamedTuple):
    """The worker replied to a frame that was not waited for any more: it has left the device.

    The worker says that it had it for `had_ms`: at most what has passed since it was sent.
    """

    id: int
    had_ms: float


class Reopen(NamedTuple):
    """The worker ends this stream soon, and takes frames until another is there."""


Event = Granted | Answered | Failed | Echoed | Returned | Reopen
