"""Whether frames may wait for the cloud, and how it is found out that they may again."""

from __future__ import annotations

import asyncio
import random

from splitpoint.codec import SplitpointError

from .connection import Connection

FAILURES = 2  # in a row, before frames stop waiting
PROBE_S = 1.0  # for the stream to open, and for an empty probe's way there and back
FIRST_PAUSE_S, LONGEST_PAUSE_S, TRIAL_S = 0.1, 1.0, 1.0


class Breaker:
    """Opens when frames go unanswered, and closes when one of them is answered again.

    While it is open no frame waits: empty probes in the background do, with pauses that double and
    vary by half, so that a thousand devices do not come back at once. Once a probe is echoed, a
    frame a second is let through, until one is answered or lost: a worker may echo and yet be too
    slow.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._failures, self._pause_s = 0, FIRST_PAUSE_S
        self._probing: asyncio.Task[None] | None = None
        self._trial_at: float | None = None  # while it is on trial: when a frame may go next

    def allows(self) -> bool:
        """Whether this frame may wait for the cloud."""
        if self._is_open:
            return False
        if self._trial_at is None:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._trial_at:
            return False
        self._trial_at = now + TRIAL_S
        return True

    def answered(self) -> None:
        """The worker has answered a frame, or refused one."""
        self._failures, self._pause_s, self._trial_at = 0, FIRST_PAUSE_S, None

    def failed(self) -> None:
        """A frame was lost with its stream, or no answer came in time."""
        self._failures += 1
        if not self._is_open and (self._failures >= FAILURES or self._trial_at is not None):
            self._probing = asyncio.create_task(self._probe_until_echoed(), name="probe-worker")

    async def close(self) -> None:
        """Stops probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    @property
    def _is_open(self) -> bool:
        return self._probing is not None and not self._probing.done()

    async def _probe_until_echoed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                stream = await self._connection.live(PROBE_S)
                await stream.probe(timeout_s=PROBE_S)
            except SplitpointError:
                continue
            self._trial_at = loop.time()
            return
