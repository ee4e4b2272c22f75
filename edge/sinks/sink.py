"""Where results go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ..result import Result


class Sink(Protocol):
    """Takes every result of a run, in order, and is closed when there are no more."""

    def add(self, result: Result) -> None:
        """One frame's end. What takes longer than a millisecond belongs behind a thread.

        `Behind` gives it one.
        """

    def close(self) -> None:
        """Nothing more will come."""


@runtime_checkable
class Counted(Protocol):
    """A sink that knows what became of the results given to it."""

    def counts(self) -> dict[str, int]:
        """By what became of them: `delivered`, `lost`, and others that the sink has a word for."""


class CallbackSink:
    """Gives each result to a function of yours."""

    def __init__(self, callback: Callable[[Result], object]) -> None:
        self._callback = callback

    def add(self, result: Result) -> None:
        """Calls it; what it raises ends the run."""
        self._callback(result)

    def close(self) -> None:
        """There is nothing to close."""
