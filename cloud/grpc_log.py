"""What gRPC itself says of calls, bounded: it writes a traceback for whatever a caller sends."""

from __future__ import annotations

import logging

from splitpoint.proto.printable import printable

from .client_use import TokenBucket

GRPC = "grpc._cython.cygrpc"
LINES_PER_S = 1.0


class Brief(logging.Filter):
    """One line for each thing that is said, one a second; it tells how many were left out.

    A caller's metadata that is no text, or one that hangs up in the middle, is nobody's fault here,
    and anybody may do it thousands of times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bucket = TokenBucket(LINES_PER_S)
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written, which is made short."""
        if not self._bucket.take():
            self._left_out += 1
            return False
        words = printable(record.getMessage())
        if record.exc_info and record.exc_info[0] is not None:
            words += f" ({record.exc_info[0].__name__})"
        if self._left_out:
            words += f"; {self._left_out} more of gRPC's lines were left out"
        record.msg, record.args = words, None
        record.exc_info, record.exc_text = None, None
        self._left_out = 0
        return True


BRIEF = Brief()


def keep_grpc_brief() -> None:
    """From now on, in this process."""
    logging.getLogger(GRPC).addFilter(BRIEF)
