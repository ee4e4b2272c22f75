"""What a module may do and be given, and is captured all the same."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec


def of(module: Any, *args: Any, **kwargs: Any) -> ModelSpec:
    return ModelSpec(source="m", module=module, args=args, kwargs=kwargs)


class Options(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(
        self, x: torch.Tensor, given: dict[str, Any], mode: str = "plain", **more: Any
    ) -> torch.Tensor:
        y = self.linear(x) if mode == "linear" else x
        y = y * given["scale"] + given["shift"]
        return y + more["bias"] if more["with_bias"] else y


class Counts(torch.nn.Module):
    """Asks Python how many samples there are, which must be a number to Python's own `len`."""

    def __init__(self) -> None:
        super().__init__()
        self.start = torch.nn.Parameter(torch.randn(1, 4, 6))
        self.linear = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = self.start.expand(len(x), -1, -1)
        y: torch.Tensor = self.linear(start + x.reshape(len(x), 4, 6))
        return y * len(self.start[0])


def test_the_length_of_a_tensor_is_its_free_batch() -> None:
    usual = builtins.len
    model = capture(Counts(), (torch.randn(3, 24),))
    assert [spec.shape for spec in model.graph.cuts[-1].tensors] == [(1, 4, 5)]
    assert builtins.len is usual


def test_what_is_no_tensor_is_constant(tmp_path: Path) -> None:
    """Numbers, bools, strings and None, in containers and among keywords without a name."""
    given = {"scale": 2.5, "shift": torch.randn(3, 8), "rest": [None, 1]}
    spec = of(Options(), torch.randn(3, 8), given, "linear", bias=torch.randn(3, 8), with_bias=True)
    manifest = compile_model(spec, tmp_path / "m.split").manifest
    assert [s.name for s in manifest.boundaries[0].tensors] == ["x", "given_shift", "bias"]
    assert manifest.max_relative_error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("sample", [torch.randn(1, 8), torch.zeros(1, 8)])
def test_one_sample_is_enough(sample: torch.Tensor, tmp_path: Path) -> None:
    manifest = compile_model(of(torch.nn.Linear(8, 8), sample), tmp_path / "m.split").manifest
    assert manifest.boundaries[0].tensors[0].shape == (1, 8)


@pytest.mark.slow
def test_random_layers_that_draw_nothing_pass(tmp_path: Path) -> None:
    layers = torch.nn.Sequential(
        torch.nn.Dropout(0.5),
        torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
    )
    spec = of(layers.train(), torch.randn(2, 3, 8))
    assert compile_model(spec, tmp_path / "m.split").manifest.max_relative_error < 1e-4
