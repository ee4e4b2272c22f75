"""Recurrent layers of many steps, and modules that torch.compile has wrapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from splitpoint.partition.capture.batch_shape import fake_value
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from torch import Tensor, nn
from torch._decomp import decompositions

KINDS = (nn.LSTM, nn.GRU, nn.RNN)


class Steps(nn.Module):
    """A recurrent layer and what reads it."""

    def __init__(self, kind: type[nn.RNNBase], *, batch_first: bool) -> None:
        super().__init__()
        self.rnn = kind(3, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
        self.head = nn.Linear(8, 2)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Any:
        if not self.batch_first:
            x = x.transpose(0, 1)
        found, states = self.rnn(x)
        if not self.batch_first:
            found = found.transpose(0, 1)
        last = states[0] if isinstance(states, tuple) else states
        return self.head(found), last.transpose(0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_many_steps_come_from_one(
    kind: type[nn.RNNBase], batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many steps, torch's own decomposition goes through as many."""
    linear, calls = decompositions.F.linear, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return linear(*args)

    monkeypatch.setattr(decompositions.F, "linear", counted)
    seen = []
    for steps in (5, 40):
        calls[0] = 0
        module = Steps(kind, batch_first=batch_first).eval()
        example = torch.randn(2, steps, 3)
        model = capture(module, (example,))
        seen.append(calls[0])
        with torch.no_grad():
            real = module(example)
        for node, value in zip(model.outputs.values(), real, strict=True):
            shape = fake_value(node).shape
            assert [int(n) for n in shape[1:]] == list(value.shape[1:])
    assert seen[0] == seen[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_are_right(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Steps(kind, batch_first=True).eval()
    spec = ModelSpec(source="steps", module=module, args=(torch.randn(3, 12, 3),))
    bundle = compile_model(spec, tmp_path / "s.split", boundaries=4)
    assert bundle.manifest.max_relative_error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("where", ["all", "a part", "a leaf"])
def test_what_torch_compile_wraps_is_captured_as_it_is_written(where: str, tmp_path: Path) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("torch.compile ran")

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    net: nn.Module = nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(4, 2)).eval()
    expected = [layer.name for layer in capture(net, (torch.randn(2, 4),)).graph.layers]
    if where == "all":
        net = torch.compile(net, backend=refuse)
    elif where == "a part":
        net[1] = torch.compile(inner, backend=refuse)
    else:
        inner[0] = torch.compile(inner[0], backend=refuse)
    spec = ModelSpec(source="c", module=net, args=(torch.randn(3, 4),))
    bundle = compile_model(spec, tmp_path / "c.split", boundaries=5)
    assert [layer.name for layer in bundle.manifest.layers] == expected
    assert bundle.manifest.max_relative_error < 1e-4


class Answers(nn.Module):
    def __init__(self, extra: str) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, *xs: Tensor) -> Any:
        batch = xs[0].shape[0]
        return xs[0] + xs[1], {"batch": batch, "twice": 2 * batch, "number": 3}[self.extra]


@pytest.mark.parametrize("extra", ["batch", "twice", "number"])
def test_an_output_that_is_no_tensor_is_named(extra: str) -> None:
    with pytest.raises(CaptureError, match="the output '1' is a number or a size"):
        capture(Answers(extra), (torch.randn(2, 4), torch.randn(2, 4)))
