"""Work on many inputs, done by several threads, with its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def side_by_side(jobs: Iterable[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """What each of `jobs` returns, in their order; what one raises is raised in its place.

    No job begins more than `threads` before the one whose result is awaited: results may be large.
    Closing the iterator waits for those that have begun.
    """
    if threads == 1:
        for job in jobs:
            yield job()
        return
    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="splitpoint-calibrate") as pool:
        try:
            for job in jobs:
                running.append(pool.submit(job))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
