"""Calls that wait for something, so many at a time: where all places are taken, one gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from splitpoint.proto.tasks import cancel_and_wait

T = TypeVar("T")


class Displaced(Exception):
    """The place was needed for somebody else."""


class WaitingRoom:
    """Places for calls of people who may not even be known.

    A newcomer always finds one. Who has most calls then loses the one that waited longest: one who
    asks and is answered is gone in no time, and one who fills places only ever fills his own.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """How many places are taken."""
        return self._count

    async def stay(self, who: str, work: Coroutine[Any, Any, T], most_s: float | None = None) -> T:
        """What `work` comes to, in a place of `who`; it is cancelled when it loses that.

        Raises `Displaced` then, and `asyncio.TimeoutError` after `most_s` seconds.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enter(who, place)
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, place), timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if place.done():
                raise Displaced
            raise asyncio.TimeoutError
        finally:
            self._leave(who, place)
            await cancel_and_wait(task)

    def _enter(self, who: str, place: asyncio.Future[None]) -> None:
        self._waiting.setdefault(who, []).append(place)
        self._count += 1
        if self._count > self._most:
            most = max(self._waiting, key=lambda name: len(self._waiting[name]))
            oldest = self._waiting[most][0]
            oldest.set_result(None)
            self._leave(most, oldest)

    def _leave(self, who: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(who, [])
        if place not in places:
            return
        places.remove(place)
        self._count -= 1
        if not places:
            del self._waiting[who]
