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
    """The worker is rid of a frame without an answer that counts, or is taken to be.

    It refused it, its reply was damaged, or nobody waited for it any more. It had it for `had_ms`,
    as it says: at most what has passed since it was sent, and all of that where it said nothing:
    then it is not `told`.
    """

    id: int
    had_ms: float
    told: bool = True


class Reopen(NamedTuple):
    """The worker ends this stream soon, and takes frames until another is there."""


Event = Granted | Answered | Failed | Echoed | Returned | Reopen
