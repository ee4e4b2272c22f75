"""A sink that works in a thread of its own: no frame waits for a disk, a broker or a drawing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque

from ..result import Result
from .sink import Counted, Sink

log = logging.getLogger("splitpoint.edge")

FLUSH_S = 10.0  # for what still waits at the end


class Behind:
    """Gives results to `sink`, in order, of which at most `most` wait.

    In a run that loses nothing, `give` waits where there is no room, and what the sink raises is
    raised by the next `give`, or by `end`. In a `live` one the oldest makes room, a result that the
    sink cannot take is warned of, the first of several, and both count as `lost`: a full disk ends
    no camera. Make it on the event loop.
    """

    def __init__(self, sink: Sink, name: str, *, live: bool, most: int) -> None:
        self.name, self.given, self.lost = name, 0, 0
        self._sink, self._live, self._most = sink, live, most
        self._loop, self._room = asyncio.get_running_loop(), asyncio.Event()
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[Result] = deque()
        self._ending = self._ended = False
        self._in_hand = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def counts(self) -> dict[str, int]:
        """Of all results: `delivered`, `lost`, and what else the sink itself says of them."""
        own = {"delivered": self.given, "lost": 0}
        if isinstance(self._sink, Counted):
            own = self._sink.counts()
        return own | {"lost": own["lost"] + self.lost}

    async def give(self, result: Result) -> None:
        """Lets it wait for the sink."""
        while not self._live and self._error is None:
            with self._changed:
                if len(self._waiting) < self._most:
                    break
                self._room.clear()
            await self._room.wait()
        with self._changed:
            self._raise()
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(result)
            self._changed.notify()

    async def end(self) -> None:
        """Closes the sink once it has all that waits, or `FLUSH_S` are over."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, FLUSH_S)
        with self._changed:
            self._ended = True  # what it still does is counted already
            self.lost += len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        works = True
        while (result := self._next()) is not None:
            try:
                self._sink.add(result)
            except Exception as error:  # noqa: BLE001 - raised where results are given, or said
                self._done(given=False)
                if not self._live:
                    self._error = error
                    break
                if works:
                    log.warning("%s: %s; what it cannot take is lost", self.name, error)
                works = False
            else:
                self._done(given=True)
                works = True
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 - raised by `end`
            self._error = self._error or error
        self._tell_room()

    def _next(self) -> Result | None:
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            found = self._waiting.popleft() if self._waiting else None
            self._in_hand = found is not None
        self._tell_room()
        return found

    def _done(self, *, given: bool) -> None:
        with self._changed:
            self._in_hand = False
            if not self._ended:
                self.given += given
                self.lost += not given

    def _tell_room(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._room.set)
