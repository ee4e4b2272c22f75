"""Runs a piece of work; where it fails, its halves, down to the part that fails alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


def run_isolated(
    run: Callable[[P], R], halves: Callable[[P], tuple[P, P] | None], piece: P
) -> tuple[list[R], list[tuple[P, Exception]]]:
    """The results of the largest parts that `run` takes, in order; and every part that it does not.

    `halves` is None for what cannot be divided.
    """
    try:
        return [run(piece)], []
    except Exception as error:  # noqa: BLE001 - whatever a kernel raises becomes its own answer
        divided = halves(piece)
        if divided is None:
            return [], [(piece, error)]
    results, failures = [], []
    for half in divided:
        good, bad = run_isolated(run, halves, half)
        results += good
        failures += bad
    return results, failures
