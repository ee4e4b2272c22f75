"""What a compilation is going to do, told before its long part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..bundle.graph import Layer
from ..tasks.task import Task

# What is left takes so many times as long as what came before: 1.6 for ResNet-18, 2.0 for ViT-B/16,
# measured on two cores that had other work.
_LEFT = 1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The model's `layers` with so many `parameters`, cut at so many `boundaries` for this `task`.

    `seconds` are left, about; calibration is not among them.
    """

    layers: int
    parameters: int
    boundaries: int
    task: Task
    seconds: float

    @classmethod
    def after(
        cls, elapsed_s: float, layers: tuple[Layer, ...], boundaries: int, task: Task
    ) -> Forecast:
        """That of a compilation whose graph is captured and whose boundaries are chosen by now."""
        return cls(
            layers=len(layers),
            parameters=sum(layer.params for layer in layers),
            boundaries=boundaries,
            task=task,
            seconds=_LEFT * elapsed_s,
        )


Foresee = Callable[[Forecast], None]
"""Called once, when it is known what will be done."""


def foresee_for_nobody(forecast: Forecast) -> None:
    """Where nobody waits for it."""
