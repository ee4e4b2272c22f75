"""Weights from a file: into the module that its makers know, whole, or refused by key."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from splitpoint.partition.errors import ModelError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.weights_file import load_weights_file
from splitpoint.partition.picture import PictureInput

State = dict[str, torch.Tensor]

FACTORY = """
import torch
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput

def plain():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))

def spec():
    picture = PictureInput(resize_px=16, height_px=16, width_px=16)
    half = (0.5,) * 3
    return ModelSpec.of_picture_model("spec", plain(), picture, mean=half, std=half)

def tensors():
    return ModelSpec(source="tensors", module=plain(), args=(torch.randn(2, 3, 8, 8),))
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "weighed_factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    return "weighed_factory"


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))


def state() -> State:
    return {
        key: torch.full_like(value, 3 if value.dtype == torch.int64 else 0.25)
        for key, value in net().state_dict().items()
    }


def prefixed(prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state().items()}


@pytest.mark.parametrize("name", ["plain", "spec", "tensors"])
def test_weights_of_what_a_factory_returns(factory: str, name: str, tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pth")
    spec = load_model(f"{factory}:{name}", str(tmp_path / "w.pth"))
    inner = spec.module if name == "tensors" else spec.module.model
    assert inner is spec.users_module
    for key, value in inner.state_dict().items():
        assert torch.equal(value, state()[key]), key


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: {"state_dict": state(), "epoch": 3},
        lambda: {"model": state(), "optimizer": {"lr": 0.1}},
        lambda: {"model_state_dict": state()},
        lambda: prefixed("module."),
        lambda: {"state_dict": prefixed("model.")},
        lambda: {"model": prefixed("module._orig_mod.")},
        lambda: {k: v for k, v in state().items() if "num_batches" not in k},  # as torch was before
    ],
)
def test_checkpoints(wrap: Callable[[], dict[str, object]], tmp_path: Path) -> None:
    torch.save(wrap(), tmp_path / "w.pth")
    module = net()
    load_weights_file(module, tmp_path / "w.pth")
    assert torch.equal(module[0].weight, state()["0.weight"])


def test_a_module_whose_own_keys_bear_a_prefix(tmp_path: Path) -> None:
    def own() -> torch.nn.Module:
        return torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})

    torch.save(own().state_dict(), tmp_path / "w.pth")
    load_weights_file(own(), tmp_path / "w.pth")


def test_weights_that_two_layers_share(tmp_path: Path) -> None:
    def tied() -> torch.nn.Module:
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        module[1].weight = module[0].weight
        return module

    written, read = tied(), tied()
    save_model(written, str(tmp_path / "w.safetensors"))
    load_weights_file(read, tmp_path / "w.safetensors")
    assert torch.equal(read[1].weight, written[1].weight)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            lambda: {"other": torch.ones(2)},
            r"do not fit Sequential: 6 missing \(0.weight, 0.bias, 1.weight, …\); "
            r"1 unexpected \(other\): give the state dict of this very module",
        ),
        (
            lambda: state() | {"0.weight": torch.ones(5, 3, 1, 1)},
            r"1 of another shape \(0.weight \[5, 3, 1, 1\], not \[2, 3, 1, 1\]\)",
        ),
        (lambda: {"epoch": 3, "lr": 0.1}, r"holds no state dict but 2 keys \(epoch, lr\)"),
        (lambda: [1, 2], "holds no state dict"),
        (
            lambda: {"model": state(), "args": argparse.Namespace(lr=1)},
            r"Python objects.*torch.save\(model.state_dict\(\), FILE\)",
        ),
        (net, "Python objects"),
    ],
)
def test_what_does_not_fit_is_named(
    given: Callable[[], object], words: str, tmp_path: Path
) -> None:
    torch.save(given(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=words) as caught:
        load_weights_file(net(), tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_hold_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file of weights"):
        load_weights_file(net(), tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=re.escape(f"cannot load weights from {tmp_path / name}")):
        load_weights_file(net(), tmp_path / name)


def test_torchscript_is_no_weights(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(ModelError, match="TorchScript program"):
        load_weights_file(torch.nn.Linear(2, 2), tmp_path / "w.pt")


def test_safetensors_of_a_factory(factory: str, tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    spec = load_model(f"{factory}:plain", str(tmp_path / "w.safetensors"))
    assert torch.equal(spec.module.model[0].weight, state()["0.weight"])


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large"])
def test_random_weights_of_a_segmentation_model_download_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*given: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    spec = load_model(f"torchvision:{name}", "none")
    assert isinstance(spec, ModelSpec)
    assert isinstance(spec.picture, PictureInput)
    assert spec.task is not None
    assert spec.task.kind == "segment"


class Counting(torch.nn.Module):
    """Keeps something in its state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.count = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    saved, loaded = Counting(), Counting()
    saved.count = 7
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights_file(loaded, tmp_path / "w.pt")
    assert loaded.count == 7
    assert torch.equal(loaded.linear.weight, saved.linear.weight)
    state = {key: value for key, value in saved.state_dict().items() if "extra" not in key}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="1 missing \\(_extra_state\\)"):
        load_weights_file(Counting(), tmp_path / "w.pt")
