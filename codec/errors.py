"""The root of every splitpoint error, and the errors of tensors and codecs.

All errors that splitpoint raises on purpose derive from `SplitpointError`: one line that says what
is wrong, and a remedy that says what to do about it. The command line prints exactly that line.
"""

from __future__ import annotations


class SplitpointError(Exception):
    """Something a user can understand and act on.

    `what` names the thing that is wrong, `remedy` the next step (it may be empty where the
    caller is a program, as on the wire).
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


class SpecError(SplitpointError):
    """A tensor does not have the dtype or shape that its specification demands."""


class CodecError(SplitpointError):
    """A tensor cannot be encoded by this codec, or a payload is not what this codec writes."""
