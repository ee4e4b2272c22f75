"""A model that takes indices in several ways: picked, shifted, clamped, worked out."""

from __future__ import annotations

import torch
from built import built
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec

WORDS, PLACES = 9, 12


class Indexed(torch.nn.Module):
    """Of `ids`, int64 `[batch, 4]`, each column is an index of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.words = torch.nn.Embedding(WORDS, 16)
        self.places = torch.nn.Embedding(PLACES, 16)
        self.middle = torch.nn.Linear(16, 16)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.middle(y + self.words(ids[:, 0]) + self.places(ids[:, 1] + 2)))
        y = torch.relu(self.middle(y + self.words(ids[:, 2] * ids[:, 2])))
        return self.last(y + self.words(ids[:, 3].clamp(0, WORDS - 1)))


def indexed_bundle() -> Bundle:
    torch.manual_seed(0)
    args = torch.randn(3, 8), torch.randint(0, 3, (3, 4))
    spec = ModelSpec(source="indexed", module=Indexed().eval(), args=args)
    return built("indexed", lambda path: compile_model(spec, path, boundaries=20), __file__)
