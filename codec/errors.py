"""The root of every splitpoint error, and the errors of tensors and codecs.

All errors that splitpoint raises on purpose derive from `SplitpointError`: one line that says what
is wrong, and a remedy that says what to do about it. The command line prints exactly that line.

Names out of files and from peers stand in these lines, whoever made them up. So what ends a line,
moves a cursor or cannot be seen is escaped in every one of them, and no error has to think of it.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """The text, with an escape for each character that is not printable: `\\x1b`, `\\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class SplitpointError(Exception):
    """Something a user can understand and act on.

    `what` names the thing that is wrong, `remedy` the next step (it may be empty where the
    caller is a program, as on the wire).
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = visible(what), visible(remedy)
        super().__init__(self.what, self.remedy)

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


class SpecError(SplitpointError):
    """A tensor does not have the dtype or shape that its specification demands."""


class CodecError(SplitpointError):
    """A tensor cannot be encoded by this codec, or a payload is not what this codec writes."""
