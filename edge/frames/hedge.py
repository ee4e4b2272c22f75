"""The device and the cloud at once on one frame: the first answer counts."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from splitpoint.proto.tasks import cancel_and_wait

from ..result import Result

# Answers that the usual time is taken from, and the fewest that make one.
ANSWERS, FEWEST_ANSWERS = 64, 10


class UsualTime:
    """In which 95 of 100 answers come, from their sending on."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []  # the same: this is asked for every frame

    def answered(self, ms: float) -> None:
        """One came after so long."""
        if len(self._latest) == ANSWERS:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
        self._latest.append(ms)
        insort(self._sorted, ms)

    @property
    def ms(self) -> float | None:
        """None before there are enough to tell."""
        if len(self._sorted) < FEWEST_ANSWERS:
            return None
        below, between = divmod(0.95 * (len(self._sorted) - 1), 1)
        low, high = self._sorted[int(below) : int(below) + 2]
        return low + between * (high - low)


class Race:
    """Begins to finish a frame on the device at some time, unless the cloud has answered by then.

    `begins` are the milliseconds after which it looks whether that is `worth` it, in order; the
    first time that it is, the device begins. `finish` makes its result; `hedged` says that it
    begins long before the budget's end. Call `end` when the frame has its result: nothing is left
    running.
    """

    def __init__(
        self,
        begins: Sequence[float],
        finish: Callable[[], Coroutine[Any, Any, Result]],
        *,
        worth: Callable[[], bool],
        hedged: bool,
    ) -> None:
        self._finish, self._worth, self.hedged = finish, worth, hedged
        self.sent = False  # whether the cloud has the frame, or is about to
        self._finishing: asyncio.Task[Result] | None = None
        self._give_up: Callable[[], None] = lambda: None
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(max(ms, 0.0) / 1e3, self._begin) for ms in begins]

    @property
    def begun(self) -> bool:
        """Whether the device is at it, or done."""
        return self._finishing is not None

    @property
    def won(self) -> bool:
        """Whether the device has an answer."""
        task = self._finishing
        # One that cannot finish the frame either leaves it to the cloud.
        return (
            task is not None
            and task.done()
            and not task.cancelled()
            and task.exception() is None
            and bool(task.result().outputs)
        )

    def against(self, give_up: Callable[[], None]) -> None:
        """The cloud is asked: `give_up` ends that, and is called when the device is first.

        What is not `sent` when the device begins is not sent any more.
        """
        self._give_up = give_up
        if self.won or (self.begun and not self.sent):
            asyncio.get_running_loop().call_soon(give_up)

    async def result(self) -> Result:
        """The device's, once it is there; only where it has `begun`."""
        assert self._finishing is not None
        return await asyncio.shield(self._finishing)

    async def end(self) -> None:
        """Stops what is not over."""
        for timer in self._timers:
            timer.cancel()
        await cancel_and_wait(self._finishing)

    def _begin(self) -> None:
        if self.begun or not self._worth():
            return
        self._finishing = asyncio.create_task(self._finish(), name="finish-here")
        self._finishing.add_done_callback(self._finished)
        if not self.sent:
            self._give_up()

    def _finished(self, task: asyncio.Task[Result]) -> None:
        if self.won:
            self._give_up()
