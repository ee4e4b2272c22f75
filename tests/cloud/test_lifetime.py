"""When a stream is to end, with a clock that runs as fast as the test wants."""

from __future__ import annotations

import asyncio

import pytest
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.frames.lifetime import Ending, Lifetime
from splitpoint.cloud.options import StreamLimits


class Stream:
    """What a lifetime sees of a stream."""

    def __init__(self) -> None:
        self.unanswered, self.computing, self.told = 0, False, []

    def send_draining(self, grace_ms: int, *, reopen: bool = False) -> None:
        self.told.append((grace_ms, reopen))


class Course:
    """Runs a lifetime: `at` takes its time to a second, and says whether it has ended by then."""

    def __init__(self, **limits: float) -> None:
        self.now_s, self.stream = 0.0, Stream()
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self.lifetime = Lifetime(StreamLimits(**limits), lambda: self.now_s, self._sleep)
        self._task = asyncio.ensure_future(self.lifetime.end(self.stream))

    async def _sleep(self, delay_s: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.now_s + delay_s, future))
        await future

    async def at(self, now_s: float) -> Ending | None:
        while True:
            for _ in range(5):
                await asyncio.sleep(0)
            if self._task.done():
                return self._task.result()
            (due_s, future), self._sleeping = self._sleeping[0], []
            if due_s > now_s:
                self._sleeping = [(due_s, future)]
                self.now_s = now_s
                return None
            self.now_s = due_s
            future.set_result(None)

    def end(self) -> None:
        self._task.cancel()


async def test_silence() -> None:
    course = Course(idle_s=60)
    assert await course.at(59) is None
    course.lifetime.touch()
    assert await course.at(118) is None
    assert await course.at(121) is Ending.IDLE
    assert not course.stream.told


async def test_a_client_that_waits_for_the_worker_is_not_idle() -> None:
    course = Course(idle_s=60)
    course.stream.computing, course.stream.unanswered = True, 1
    assert await course.at(1000) is None
    course.stream.computing = False  # the answer is there, and nobody reads it
    assert await course.at(1200) is Ending.IDLE


async def test_age() -> None:
    course = Course(idle_s=60, max_age_s=100, move_s=5)
    for second in range(0, 99, 10):
        assert await course.at(second) is None
        course.lifetime.touch()
    assert not course.stream.told
    assert await course.at(101) is None
    assert course.stream.told == [(5000, True)]
    assert not course.lifetime.is_over  # frames that are on their way are taken
    course.stream.unanswered = 1
    course.lifetime.touch()
    assert await course.at(110) is None
    assert course.lifetime.is_over
    course.stream.unanswered = 0
    assert await course.at(111) is Ending.AGE
    assert course.stream.told == [(5000, True)]


async def test_answers_that_nobody_reads_do_not_keep_an_old_stream() -> None:
    course = Course(idle_s=60, max_age_s=10, move_s=5)
    course.stream.unanswered = 1
    assert await course.at(59) is None
    assert await course.at(61) is Ending.IDLE


async def test_no_age_means_none() -> None:
    course = Course(idle_s=1e9)
    assert await course.at(1e8) is None
    assert not course.stream.told
    course.end()


def test_limits_that_make_no_sense() -> None:
    for fields in ({"max_streams": 0}, {"max_streams_per_client": 0}, {"idle_s": 0},
                   {"max_age_s": -1}, {"idle_s": float("nan")}, {"move_s": -1}):  # fmt: skip
        with pytest.raises(ServeError):
            StreamLimits(**fields)
