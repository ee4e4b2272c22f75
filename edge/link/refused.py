"""Remembers that a worker does not let this device in, so that it is asked seldom, and then not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from splitpoint.proto.backoff import Backoff
from splitpoint.proto.status import PermissionDeniedError, RefusedError, UnauthenticatedError

log = logging.getLogger("splitpoint.edge")

# Somebody has to change a file first. A quarter of an hour is enough to replace a certificate or a
# token on both ends; a device that knocks for ever is a nuisance, and looks like an attack.
FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_ATTEMPTS = 1.0, 120.0, 14

TURNED_AWAY = (UnauthenticatedError, PermissionDeniedError)


class TurnedAway:
    """One worker's refusals in a row. Pauses between attempts double, and the last is the last."""

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._clock = server, clock
        self._error: RefusedError | None = None
        self._attempts, self._next_s = 0, 0.0
        self._pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def check(self) -> None:
        """Raises the latest refusal again while it is not the time for another attempt."""
        if self._error is not None and (
            self._attempts >= MOST_ATTEMPTS or self._clock() < self._next_s
        ):
            raise self._error.with_traceback(None)  # that of the attempts before would grow

    def again(self, error: RefusedError) -> None:
        """It has happened (again)."""
        self._attempts += 1
        self._error, self._next_s = error, self._clock() + self._pauses.next_s()
        if self._attempts == MOST_ATTEMPTS:
            log.error(
                "%s; it is not asked again until a certificate or the token has changed, or the "
                "agent is started again", error,
            )  # fmt: skip

    def let_in(self) -> None:
        """It is over."""
        self._error, self._attempts = None, 0
        self._pauses.reset()
