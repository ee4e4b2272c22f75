"""What a head is: the arithmetic from a model's outputs to its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from splitpoint.codec import Array, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Which detections are in an answer; see `Task`."""

    min_score: float
    max_iou: float
    max_detections: int


class Head(Protocol):
    """Turns outputs into the answer, on the device or at the worker: equal ones give equal answers.

    It keeps no state between calls, and may be called from any thread.
    """

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the answer."""

    @property
    def classes(self) -> int | None:
        """How many have a number, the background too; None where the outputs do not say."""

    def answer(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The answer's tensors by name, from the model's outputs by the user's names.

        The outputs are those that the head was opened with, of any batch size. NaN and infinity are
        no error: what was computed from them is no detection, and no class of a pixel.
        """

    def information(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """How much errors in each value of these outputs cost, in their shapes.

        It is the root of the diagonal of their Fisher information: half the square of an error
        times this is the divergence that it is worth, in nats. Empty where nothing tells the values
        of an output apart.
        """
