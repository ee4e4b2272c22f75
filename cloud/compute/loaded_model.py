"""A bundle that an engine of this process computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .runner import Runner
from .served_model import ServedModel
from .timing import Timing


@dataclass(kw_only=True, eq=False)
class LoadedModel(ServedModel):
    """A served model with what computes it.

    `measure_again`, where that is due, measures its times anew on the compute thread: None where
    they were disturbed. It calls what it is given between whatever it times; what that raises ends
    it.
    """

    runner: Runner
    measure_again: Callable[[Callable[[], None]], Timing | None] | None = None

    def __post_init__(self) -> None:
        """What it takes is what its runner takes."""
        super().__post_init__()
        self.unpacks = self.runner.unpacks
