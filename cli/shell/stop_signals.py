"""SIGINT and SIGTERM: the first one ends a command in order, the second one at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import TypeVar

from splitpoint.proto.tasks import cancel_and_wait

from .broken_pipe import ReaderGone
from .output import err, say

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = 130  # what a shell says of a command that ended by Ctrl-C


class Stopped(Exception):
    """The user stopped what was being waited for."""


class StopSignals:
    """While it is entered, signals set `requested` instead of ending the process.

    `words` are said when the first one comes, "" for none.
    """

    def __init__(self, words: str = "") -> None:
        self._event, self._words = asyncio.Event(), words

    def __enter__(self) -> StopSignals:
        """Takes the signals over."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        return self

    def __exit__(self, *error: object) -> None:
        """Gives them back."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Returns once a signal has come."""
        await self._event.wait()

    async def unless_requested(self, work: Awaitable[T]) -> T:
        """What `work` comes to; `Stopped`, and `work` is cancelled, once a signal has come."""
        task = asyncio.ensure_future(work)
        waiting = asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            await cancel_and_wait(task, waiting)

    async def until_requested(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items up to the signal, whether or not one is on its way then."""
        try:
            while not self.requested:
                try:
                    item = await self.unless_requested(anext(items))
                except (StopAsyncIteration, Stopped):
                    return
                yield item
        finally:
            await items.aclose()

    def _signalled(self) -> None:
        if self.requested:
            err.show_cursor(True)  # a live table may have hidden it
            with suppress(ReaderGone):
                sys.stdout.flush()
            os._exit(AT_ONCE)
        if self._words:
            say(self._words)
        self._event.set()
