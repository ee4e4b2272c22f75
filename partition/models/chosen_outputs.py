"""A model of whose outputs some are the answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model_spec import Around


class ChosenOutputs(Around):
    """Returns the outputs that are `named`, or the first tensor, where the model names none."""

    def __init__(self, model: torch.nn.Module, named: Sequence[str] = ()) -> None:
        super().__init__(model)
        self.named = tuple(named)

    def forward(self, pictures: Tensor) -> Tensor | dict[str, Tensor]:
        """Of normalised float32 `[batch, 3, height, width]`."""
        found = self.model(pictures)
        if self.named:
            return {name: found[name] for name in self.named}
        first: Tensor = found if isinstance(found, Tensor) else found[0]
        return first
