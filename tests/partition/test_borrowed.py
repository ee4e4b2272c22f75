"""A compile leaves the user's module as it was: it is the oracle, and may be used afterwards."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from splitpoint.partition.capture.borrowed import borrowed
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError, ModelError
from splitpoint.partition.model_spec import ModelSpec
from torch._subclasses.fake_tensor import FakeTensor


class Attention(torch.nn.Module):
    """Keeps its biases while it evaluates, as EfficientFormer, TinyViT and LeViT do."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = torch.nn.Parameter(torch.randn(1, 9))
        self.register_buffer("index", torch.arange(9).reshape(3, 3))
        self.attention_bias_cache: OrderedDict[str, torch.Tensor] = OrderedDict()

    def train(self, mode: bool = True) -> torch.nn.Module:
        super().train(mode)
        if mode:
            self.attention_bias_cache.clear()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = str(x.device)
        if self.training:
            return x @ self.biases[:, self.index][0]
        if key not in self.attention_bias_cache:
            self.attention_bias_cache[key] = self.biases[:, self.index]
        return x @ self.attention_bias_cache[key][0]


class Anchors(torch.nn.Module):
    """Computes anchors when the picture's size changes, as YOLO's heads do."""

    shape = None

    def __init__(self) -> None:
        super().__init__()
        self.anchors = torch.empty(0)
        self.sizes: list[torch.Size] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.shape != x.shape[1:]:
            self.shape = x.shape[1:]
            self.sizes.append(self.shape)
            self.anchors = torch.arange(3, dtype=x.dtype)
            self.grid = self.anchors.unsqueeze(0) + 1  # an attribute that was not there before
        return x + self.anchors + self.grid


class Merging(torch.nn.Module):
    """Adds a low-rank update to its weight while it evaluates, as LoRA layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(3))
        self.merged = False

    def train(self, mode: bool = True) -> torch.nn.Module:
        super().train(mode)
        if self.merged == mode:
            self.weight.data += -1.0 if mode else 1.0
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Whole(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.Sequential(
            Attention(), Anchors(), Merging(), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x)


def of(module: torch.nn.Module) -> ModelSpec:
    return ModelSpec(source="whole", module=module, args=(torch.randn(3, 3),))


def state(module: torch.nn.Module) -> dict[str, dict[str, object]]:
    return {name: copy.deepcopy(vars(part)) for name, part in module.named_modules()}


def assert_same(now: object, before: object) -> None:
    if isinstance(before, torch.Tensor):
        assert isinstance(now, torch.Tensor)
        assert not isinstance(now, FakeTensor)
        assert torch.equal(now, before)
    elif isinstance(before, dict):
        assert isinstance(now, dict)
        assert list(now) == list(before)
        for key, value in before.items():
            assert_same(now[key], value)
    elif not isinstance(before, torch.nn.Module):
        assert now == before


@pytest.mark.parametrize("training", [True, False])
def test_an_export_leaves_the_module_as_it_was(training: bool) -> None:
    module = Whole().train(training)
    module.parts[3].eval()  # frozen, as in fine-tuning
    before, inner = state(module), module.parts[0].attention_bias_cache
    capture(module, (torch.randn(3, 3),))
    assert_same(state(module), before)
    assert module.parts[0].attention_bias_cache is inner
    assert module(torch.randn(2, 3)).shape == (2, 3)


def test_a_compile_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    module = Whole()
    before = state(module)
    bundle = compile_model(of(module), tmp_path / "m.split")
    assert bundle.manifest.max_relative_error < 1e-4
    assert_same(state(module), before)


def test_so_does_one_that_fails() -> None:
    class Failing(Whole):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[: int(x.sum())]

    module = Failing()
    before = state(module)
    with pytest.raises(CaptureError):
        capture(module, (torch.randn(3, 3),))
    assert_same(state(module), before)


def test_a_module_that_was_exported_can_be_a_part() -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(
        torch.nn.Linear(3, 3), (torch.randn(2, 3),), dynamic_shapes=shapes
    )
    module = torch.nn.Sequential(program.module(), torch.nn.ReLU())
    train = module[0].train
    with borrowed(module):
        assert not module[0].training
    assert module[0].train is train


class YOLO(torch.nn.Module):
    """As in ultralytics: a module whose `train` trains."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(3, 3)

    def train(self, trainer: object = None, **options: object) -> None:
        raise AssertionError("training began")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Trainable(torch.nn.Module):
    def train(self, data: str, epochs: int = 3) -> None:
        raise AssertionError("training began")


class Evaluated(torch.nn.Module):
    def eval(self, data: str) -> None:
        raise AssertionError("evaluation began")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            YOLO(),
            r"YOLO, whose train\(trainer=None, \*\*options\) is not.*return its `model`",
        ),
        (torch.nn.Sequential(YOLO()), r"'0' is YOLO,.*return its `model`"),
        (Trainable(), r"Trainable, whose train\(data, epochs=3\).*return the module inside"),
        (Evaluated(), r"Evaluated, whose eval\(data\)"),
    ],
)
def test_a_train_that_is_not_torchs_is_not_called(module: torch.nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        capture(module, (torch.randn(2, 3),))
    assert "\n" not in str(caught.value)


class Modes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def train(self, is_train: bool = True) -> torch.nn.Module:
        return super().train(is_train)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_an_own_train_with_torchs_meaning_is_called() -> None:
    assert capture(Modes(), (torch.randn(2, 3),)).graph.layers
