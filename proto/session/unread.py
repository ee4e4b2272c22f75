"""Answers that wait because their clients do not read: a bounded amount, over all streams."""

from __future__ import annotations

UNREAD_BYTES = 256 << 20


class Unread:
    """Counts bytes. Once it `is_full`, no stream with an answer in it is read from any further.

    A client that reads empties its own at once, and never notices.
    """

    def __init__(self, most_bytes: int = UNREAD_BYTES) -> None:
        self.most_bytes, self.nbytes = most_bytes, 0

    def add(self, nbytes: int) -> None:
        """An answer waits."""
        self.nbytes += nbytes

    def take(self, nbytes: int) -> None:
        """It was written, or nobody is there any more."""
        self.nbytes -= nbytes

    @property
    def is_full(self) -> bool:
        """Whether there is more than there may be."""
        return self.nbytes > self.most_bytes
