"""Jobs by several threads: in order, bounded, and with what one of them raises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from splitpoint.partition.calibrate.side_by_side import side_by_side


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_jobs_however_long_they_take(threads: int) -> None:
    gates = [threading.Event() for _ in range(6)]
    for gate in gates[1:]:
        gate.set()

    def job(number: int) -> int:
        if number == 1:
            gates[0].set()
        if threads > 1:
            assert gates[number].wait(10)  # the first ends after the second has begun
        return number

    found = list(side_by_side((partial(job, number) for number in range(6)), threads))
    assert found == list(range(6))


def test_no_more_are_begun_than_there_is_room_for() -> None:
    begun = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal begun
        for number in range(100):
            begun += 1
            yield lambda number=number: number  # type: ignore[misc]

    results = side_by_side(jobs(), 2)
    assert next(results) == 0
    assert begun == 3
    results.close()
    assert begun == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_job_raises_is_raised_in_its_place(threads: int) -> None:
    def job(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    results = side_by_side((partial(job, number) for number in range(9)), threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    left = [thread for thread in threading.enumerate() if "calibrate" in thread.name]
    assert left == []
