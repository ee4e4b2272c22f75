"""What is said of single calls and frames, bounded: clients decide how often there is something."""

from __future__ import annotations

import logging

from splitpoint.proto.printable import printable

from .access.token_bucket import TokenBucket

GRPC = "grpc._cython.cygrpc"  # writes a traceback for metadata that is no text, or who hangs up
FRAMES = "splitpoint.cloud.frames"  # those that could not be computed
LINES_PER_S, MOST = 1.0, 300


class Brief(logging.Filter):
    """One line of so many characters for each thing, one a second; it says how many it left out."""

    def __init__(self) -> None:
        super().__init__()
        self._bucket = TokenBucket(LINES_PER_S)
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written, which is made short."""
        if not self._bucket.take():
            self._left_out += 1
            return False
        words = printable(record.getMessage(), MOST)
        if record.exc_info and record.exc_info[0] is not None:
            words += f" ({record.exc_info[0].__name__})"
        if self._left_out:
            words += f"; {self._left_out} more of these were left out"
        record.msg, record.args = words, None
        record.exc_info, record.exc_text = None, None
        self._left_out = 0
        return True


_FILTERS = {name: Brief() for name in (GRPC, FRAMES)}


def keep_log_brief() -> None:
    """From now on, in this process."""
    for name, brief in _FILTERS.items():
        logging.getLogger(name).addFilter(brief)
