"""A device that began without a worker goes on with one once it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from splitpoint.codec import SplitpointError
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.tasks import cancel_and_wait

log = logging.getLogger("splitpoint.edge")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 60.0


class Joining:
    """Calls `join`, from the first stream on, until it goes well once.

    What it raises is said once for each reason; pauses double.
    """

    def __init__(self, join: Callable[[], Awaitable[None]]) -> None:
        self._join = join
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A worker was reached."""
        if self._task is None:
            self._task = asyncio.create_task(self._until_joined(), name="join-worker")

    async def close(self) -> None:
        """Ends what is under way."""
        await cancel_and_wait(self._task)

    async def _until_joined(self) -> None:
        pauses, said = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), ""
        while True:
            # The worker has just been reached: its breaker closes with the first echo.
            await asyncio.sleep(pauses.next_s())
            try:
                await self._join()
            except SplitpointError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the device goes on alone: %s", error)
            except Exception:
                log.exception("the device goes on alone, and does not ask again")
                return
            else:
                return
