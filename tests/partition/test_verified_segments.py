"""Segments are compared with the unsplit model, and the cause of a difference is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from splitpoint.codec import SplitpointError
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec


def of(module: Any, *args: Any, **kwargs: Any) -> ModelSpec:
    return ModelSpec(source="m", module=module, args=args, kwargs=kwargs)


class Counting(torch.nn.Module):
    """Answers otherwise every time."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counting.calls += 1
        return x * Counting.calls


class Sizing(torch.nn.Module):
    """Looks at the size of the batch, as it is when it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if torch.compiler.is_exporting() or len(x) > 1 else x


class Exported(torch.nn.Module):
    """Computes something else while it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if torch.compiler.is_exporting() else x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (Counting(), "and so do two runs of the unsplit model"),
        (Sizing(), "answers otherwise to a batch than to its samples alone"),
        (Exported(), "the same every time"),
    ],
)
def test_segments_that_differ(module: torch.nn.Module, cause: str, tmp_path: Path) -> None:
    with pytest.raises(SplitpointError, match="differ from the unsplit model by") as caught:
        compile_model(of(module, torch.randn(3, 8)), tmp_path / "m.split")
    assert cause in caught.value.what
    assert "\n" not in str(caught.value)
