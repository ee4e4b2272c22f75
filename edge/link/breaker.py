"""Whether frames may wait for a worker, and how it is found out that they may again."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time

from splitpoint.codec import SplitpointError
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.status import RefusedError
from splitpoint.proto.tasks import cancel_and_wait, start_task

from .connection import Connection

log = logging.getLogger("splitpoint.edge")

MOST_FAILURES = 2  # in a row, before frames stop waiting
PROBE_S = 1.0  # for the stream to open, and for an empty probe's way there and back
# Frames go to the cloud again within 2 s of its return: a pause, a stream, an echo.
FIRST_PAUSE_S, LONGEST_PAUSE_S, TRIAL_S = 0.1, 0.5, 0.5
# Who has been away for so long may be found a little later: radios cost energy.
PATIENCE_S, PATIENT_PAUSE_S = 300.0, 5.0
REFUSED_PAUSE_S = 1.0  # who refuses this device, rarely changes its mind
# Who echoes and leaves frames unanswered is not to be preferred to others for so long: twice that
# after each time.
SHUNNED_S, LONGEST_SHUNNED_S = 10.0, 600.0


class Breaker:
    """Opens when frames go unanswered, and closes when one of them is answered again.

    While it is open no frame waits: empty probes in the background do, with pauses that double and
    vary by half, so that a thousand devices do not come back at once. Once a probe is echoed, now
    and then a frame is let through, until one is answered or lost: a worker may echo and yet be too
    slow.
    """

    def __init__(self, connection: Connection, pauses: Backoff | None = None) -> None:
        self._connection = connection
        self._failures, self._pauses = 0, pauses or Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._probing: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None  # after a first lost frame
        self._trial_at: float | None = None  # while it is on trial: when a frame may go next
        self._refusal = ""
        self._closed = False
        self._shunned_until_s, self._shunning = -math.inf, Backoff(SHUNNED_S, LONGEST_SHUNNED_S)

    def allows(self) -> bool:
        """Whether this frame may wait for the cloud."""
        if self.is_open or self._closed:
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
        self._failures, self._trial_at, self._refusal = 0, None, ""
        self._pauses.reset()
        self._shunning.reset()
        self._shunned_until_s = -math.inf

    def failed(self) -> None:
        """A frame was lost with its stream, or no answer came in time."""
        self._failures += 1
        if self._failures >= MOST_FAILURES or self._trial_at is not None:
            if not self.is_open:
                self._shunned_until_s = time.perf_counter() + self._shunning.next_s()
            self.open()
        else:
            self.doubted()

    def doubted(self) -> None:
        """A frame was not waited for any longer: it is asked whether the worker is there at all."""
        if not (self.is_open or self._closed) and (self._asking is None or self._asking.done()):
            self._asking = start_task(self._still_there(), "ask-worker", log)

    def open(self) -> None:
        """No frame is to wait, until a probe was echoed."""
        if self.is_open or self._closed:
            return
        if self._asking is not None:
            self._asking.cancel()
        self._probing = start_task(self._probe_until_echoed(), "probe-worker", log)

    async def close(self) -> None:
        """Stops probing for good, and lets no frame go any more."""
        self._closed = True
        await cancel_and_wait(self._probing, self._asking)

    @property
    def is_open(self) -> bool:
        """Whether no frame may wait now."""
        return self._probing is not None and not self._probing.done()

    @property
    def shunned(self) -> bool:
        """Whether it has lately left frames unanswered, and none was answered since."""
        return time.perf_counter() < self._shunned_until_s

    async def _still_there(self) -> None:
        """A link may be dead without a word: one lost frame, and no echo either, is enough."""
        stream = self._connection.stream
        if stream is None or stream.session.broken is not None:
            return
        asked_s = time.perf_counter()
        try:
            await stream.probe(timeout_s=PROBE_S)
        except SplitpointError:
            if stream.session.heard_s < asked_s:
                self._asking = None  # not to be cancelled from within
                self.open()

    async def _probe_until_echoed(self) -> None:
        loop = asyncio.get_running_loop()
        since_s, self._pauses.longest_s = loop.time(), LONGEST_PAUSE_S
        refused = False
        while not self._closed:  # who cancels it may not be heard by what it waits for
            pause_s = REFUSED_PAUSE_S if refused else self._pauses.next_s()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            refused = False
            if loop.time() - since_s > PATIENCE_S:
                self._pauses.longest_s = PATIENT_PAUSE_S
            try:
                stream = await self._connection.live(PROBE_S)
                await stream.probe(timeout_s=PROBE_S)
            except RefusedError as error:
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    log.warning("%s", error)
                refused = True
                continue
            except SplitpointError:
                continue
            if stream.session.draining:
                continue
            self._trial_at = loop.time()
            return
