"""The thread that computes, one round after the other, until it is left behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("splitpoint.cloud")


class ComputeThread:
    """Calls `work` again and again. What that raises is given to `recover`, and it goes on.

    It cannot be stopped while it is in a kernel. Once it is left, nothing it does counts any more.
    """

    def __init__(
        self,
        work: Callable[[ComputeThread], None],
        recover: Callable[[ComputeThread, BaseException], None],
    ) -> None:
        self._work, self._recover = work, recover
        self.is_left = False
        self._thread = threading.Thread(target=self._run, name="splitpoint-compute", daemon=True)

    def start(self) -> None:
        """Begins; `RuntimeError` where the machine has no thread to give."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it computes, and what it computes counts."""
        return self._thread.is_alive() and not self.is_left

    def leave(self) -> None:
        """Ends it after what it is doing now."""
        self.is_left = True

    def join(self, seconds: float) -> None:
        """Waits for its end, but no longer than that."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self.is_left:
                try:
                    self._work(self)
                except BaseException as error:  # noqa: BLE001 - it is told to who can help
                    self._recover(self, error)
        except BaseException:
            log.exception("the compute thread ends")
