"""The ways to name a model and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from splitpoint.partition.compile import compile_model
from splitpoint.partition.errors import ModelError
from splitpoint.partition.model_source import load_model
from splitpoint.partition.model_spec import ModelSpec


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) * scale


def test_exported_program(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"x": {0: batch}, "scale": {0: batch}}
    args, kwargs = (torch.randn(3, 4),), {"scale": torch.randn(3, 1)}
    program = torch.export.export(Pair(), args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "pair.pt2")
    spec = load_model(str(tmp_path / "pair.pt2"))
    bundle = compile_model(spec, tmp_path / "pair.split")
    assert [s.name for s in bundle.manifest.boundaries[0].tensors] == ["x", "scale"]
    assert bundle.manifest.max_relative_error < 1e-4


def test_keyword_inputs(tmp_path: Path) -> None:
    spec = ModelSpec(
        source="pair", module=Pair(), args=(torch.randn(3, 4),), kwargs={"scale": torch.randn(3, 1)}
    )
    bundle = compile_model(spec, tmp_path / "pair.split")
    assert [s.name for s in bundle.manifest.boundaries[0].tensors] == ["x", "scale"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    reference = load_model("torchvision:alexnet", "none").module.model
    state = {name: torch.full_like(value, 0.5) for name, value in reference.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_model("torchvision:alexnet", str(path)).module.model
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="cannot load weights"):
        load_model("torchvision:alexnet", str(tmp_path / "evil.pth"))
    assert not (tmp_path / "pwned").exists()


def test_random_weights_are_seeded() -> None:
    first, second = (load_model("torchvision:alexnet", "none").module for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
