"""What is odd about a model is said before the long part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.forecast import Forecast
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from torch import nn

FACTORIES = """
import torch
from splitpoint.partition.model_spec import ModelSpec

def plain():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Dropout()
    )

def ready():
    module = plain().eval()
    torch.nn.init.normal_(module[1].weight)
    return module

def spec():
    return ModelSpec(source="spec", module=torch.nn.Linear(3, 2), args=(torch.ones(2, 3),))
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "untrained_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def said(source: str, weights: str = "default") -> str:
    return " | ".join(load_model(source, weights).remarks)


def test_training_mode(factories: Path) -> None:
    for name in ("plain", "spec"):
        assert f"untrained_factories:{name} returns the model in training mode" in said(
            f"untrained_factories:{name}"
        )
    assert said("untrained_factories:ready") == ""


def test_random_weights(factories: Path) -> None:
    assert "the weights of untrained_factories:plain are random" in said(
        "untrained_factories:plain"
    )
    assert "random" not in said("untrained_factories:spec")  # nothing tells
    assert "the weights of torchvision:alexnet" not in said("torchvision:alexnet", "none")
    assert "the weights of torchvision:squeezenet1_1" not in said(
        "torchvision:squeezenet1_1", "none"
    )
    assert "the weights of torchvision:resnet18 are random" in said("torchvision:resnet18", "none")
    assert said("efficientnet-lite0") == ""
    state = load_model("untrained_factories:ready").users_module.state_dict()
    save_file(state, factories / "w.safetensors")
    assert "random" not in said("untrained_factories:plain", str(factories / "w.safetensors"))


def test_the_long_part_is_foreseen(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    spec = ModelSpec(source="m", module=module, args=(torch.randn(2, 8),))
    told: list[Forecast] = []

    def foresee(forecast: Forecast) -> None:
        assert not list(tmp_path.iterdir())
        told.append(forecast)

    bundle = compile_model(spec, tmp_path / "m.split", foresee=foresee)
    (forecast,) = told
    assert forecast.layers == len(bundle.manifest.layers) == 3
    assert forecast.parameters == 8 * 16 + 16 + 16 * 4 + 4
    assert forecast.boundaries == len(bundle.manifest.boundaries)
    assert forecast.task == bundle.manifest.task
    assert 0 < forecast.seconds < 600


def test_nothing_is_foreseen_of_what_is_refused(tmp_path: Path) -> None:
    class Mixes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0, keepdim=True)

    told: list[Forecast] = []
    spec = ModelSpec(source="m", module=Mixes(), args=(torch.randn(2, 8),))
    with pytest.raises(CaptureError):
        compile_model(spec, tmp_path / "m.split", foresee=told.append)
    assert not told
