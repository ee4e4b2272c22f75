"""What one thread waits for while there is nothing to do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from queue import Empty, SimpleQueue


class Bell:
    """One that was rung is heard at once. Change what there is to do before it is rung.

    Far cheaper than a condition, on both sides.
    """

    def __init__(self) -> None:
        self._rung = SimpleQueue[None]()
        self._is_due = False

    def ring(self) -> None:
        """Wakes the thread, or keeps it from waiting once."""
        if self._rung.empty():
            self._rung.put(None)

    def ring_soon(self) -> None:
        """Rings once the running event loop has done what it has at hand.

        Two threads that are at work at once wait for Python's lock in turn, many times a frame.
        """
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._ring_now)

    def forget(self) -> None:
        """It was rung for what is looked at from here on."""
        if not self._rung.empty():
            self.wait(0.0)

    def wait(self, seconds: float | None) -> None:
        """Returns once it is rung, or after so long; None for no matter how long."""
        with suppress(Empty):
            self._rung.get(timeout=seconds)

    def _ring_now(self) -> None:
        self._is_due = False
        self.ring()
