"""A thread that waits for something to do misses nothing, and is woken once for all at hand."""

from __future__ import annotations

import threading
import time

from patience import until
from splitpoint.cloud.engine.bell import Bell


def test_what_was_rung_before_is_heard_at_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    bell.wait(None)
    begin = time.perf_counter()
    bell.wait(0.05)
    assert time.perf_counter() - begin > 0.04


def test_what_is_forgotten_is_not_heard() -> None:
    bell = Bell()
    bell.forget()
    bell.ring()
    bell.forget()
    begin = time.perf_counter()
    bell.wait(0.05)
    assert time.perf_counter() - begin > 0.04


def test_no_change_is_missed() -> None:
    """The thread looks for what there is to do after it has forgotten for what it was rung."""
    bell, given, done = Bell(), 0, 0
    count = 20_000

    def work() -> None:
        nonlocal done
        while done < count:
            bell.forget()
            if done == given:
                bell.wait(None)
            done = given

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for _ in range(count):
        given += 1
        bell.ring()
    thread.join(60)
    assert done == count


async def test_it_rings_once_for_all_that_the_event_loop_has_at_hand() -> None:
    bell, woken = Bell(), 0
    seen: list[int] = []

    def wait() -> None:
        nonlocal woken
        while woken < 2:
            bell.wait(None)
            woken += 1
            seen.append(taken)

    taken = 0
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    for times in (1, 2):
        for _ in range(3):
            taken += 1
            bell.ring_soon()
            time.sleep(0.01)  # noqa: ASYNC251 - the other thread could run meanwhile
        await until(lambda times=times: len(seen) == times)  # type: ignore[misc]
    thread.join(60)
    assert seen == [3, 6]
