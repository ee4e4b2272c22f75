"""SIGINT and SIGTERM while libraries are imported, which takes time and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_end_at_once() -> Iterator[None]:
    """While it is entered, Ctrl-C ends the process with 130, SIGTERM with what a shell calls 143.

    Neither says anything: an import that is interrupted by an exception shows its whole stack, or
    swallows it. What the process was told to ignore stays ignored.
    """
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    if number == signal.SIGTERM:  # a service manager takes no exit code for an end in order
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # returns only in a container's first process
    os._exit(128 + number)
