"""One session after the other: frames that have begun in one end in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager

from splitpoint.proto.tasks import until_ended

from .session import Session

log = logging.getLogger("splitpoint.edge")


class Tenure:
    """The time of one session, which is entered; `over` is done when another has followed."""

    def __init__(self, session: Session, closing: AsyncExitStack) -> None:
        self.session = session
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing, self._users = closing, 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def used(self) -> Iterator[Session]:
        """The session, which is not closed meanwhile."""
        self._users += 1
        self._unused.clear()
        try:
            yield self.session
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def end(self) -> None:
        """Closes the session when nobody uses it any more."""
        await self._unused.wait()
        await self._closing.aclose()

    def at_once(self) -> None:
        """Whoever uses it still has to do without."""
        self._unused.set()


class Succession:
    """Sessions of one agent: another takes the place of the present one between two frames."""

    def __init__(self) -> None:
        self.present: Tenure | None = None  # for the next frame; stays when all is closed
        self._ending: dict[asyncio.Task[None], Tenure] = {}
        self._closed = False

    async def follow(self, opening: AbstractAsyncContextManager[Session]) -> None:
        """Enters a session, in which frames begin from now on.

        The one before is left once its frames have ended. Raises what entering raises, and then
        everything is as it was.
        """
        closing = AsyncExitStack()
        session = await closing.enter_async_context(opening)
        before, self.present = self.present, Tenure(session, closing)
        if before is not None:
            before.over.set_result(None)
            self._end(before)

    async def close(self) -> None:
        """Leaves all of them, whether or not anybody uses them.

        Who is cancelled meanwhile has left them by then: half of a session would go on for ever.
        """
        if self.present is not None and not self._closed:
            self._closed = True
            self._end(self.present)
        for tenure in self._ending.values():
            tenure.at_once()
        ending = list(self._ending)
        await until_ended(*ending)
        for task in ending:
            task.result()  # raises what went wrong

    def _end(self, tenure: Tenure) -> None:
        task = asyncio.create_task(tenure.end(), name="end-session")
        self._ending[task] = tenure
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._ending[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a session did not end well", exc_info=error)
