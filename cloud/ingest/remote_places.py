"""Places of streams and downloads, which the engine's process gives out to all ingest processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..access.tokens import Client
from ..between.clients import refusal_of, told_client
from ..between.messages import Kind
from ..between.pipe import Pipe, json_fields

STREAMS, DOWNLOADS = "streams", "downloads"


class PlaceQuestions:
    """Asks for places, and hears the answers."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[None]] = {}

    async def take(self, what: str, client: Client) -> int:
        """The number of a place; raises `AccessError` if none is left."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._pipe.say(Kind.TAKE, number=number, what=what, client=told_client(client))
        try:
            await answer
        except asyncio.CancelledError:
            self.leave(number)  # the engine's process answers in order: it has given it, or will
            raise
        finally:
            del self._asked[number]
        return number

    def leave(self, number: int) -> None:
        """The place is free again."""
        self._pipe.say(Kind.LEAVE, number=number)

    def take_answer(self, data: bytes) -> None:
        """A place was given, or refused."""
        told = json_fields(data)
        answer = self._asked.get(told["number"])
        if answer is None or answer.done():
            return
        if told["refused"] is None:
            answer.set_result(None)
        else:
            answer.set_exception(refusal_of(told["refused"]))


class RemotePlaces:
    """Of one kind. See `PlaceKeeper`."""

    def __init__(self, questions: PlaceQuestions, what: str) -> None:
        self._questions, self._what = questions, what
        self._taken = 0

    def __len__(self) -> int:
        """How many are taken by this process."""
        return self._taken

    @asynccontextmanager
    async def taken(self, client: Client) -> AsyncIterator[None]:
        """See `PlaceKeeper`."""
        number = await self._questions.take(self._what, client)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._questions.leave(number)
