"""Layers with the user's names, cuts that carry what must cross, and refusals."""

from __future__ import annotations

import pytest
import torch
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.cuts.choose import choose_cuts
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec


def test_small_net(small: ModelSpec) -> None:
    model = capture(small.module, small.args, name_prefix="model.")
    names = [layer.name for layer in model.graph.layers]
    assert names == [
        "normalise", "conv1", "bn1", "relu", "conv2", "relu#2", "conv3", "add", "mean", "head",
    ]  # fmt: skip
    conv1 = model.graph.layers[1]
    assert (conv1.op, conv1.output_shape, conv1.params) == ("conv2d", (8, 12, 12), 216)
    assert conv1.flops == 2 * 8 * 12 * 12 * 27
    assert conv1.output_bytes == 4 * 8 * 12 * 12
    first, last = model.graph.cuts[0], model.graph.cuts[-1]
    assert [s.dtype for s in first.tensors] == ["uint8"]
    assert first.nbytes == 24 * 24 * 3
    assert last.after == 9
    # relu#2 is read by conv3 and by add: it is alive until add, and carried once.
    crossing = {layer.name: layer.crossing_bytes for layer in model.graph.layers}
    assert crossing["relu#2"] == 16 * 36 * 4
    assert crossing["conv3"] == 2 * 16 * 36 * 4
    assert crossing["add"] == 16 * 36 * 4


def test_every_cut_is_a_true_cut(small: ModelSpec) -> None:
    """What crosses a cut is exactly what lies before it and is read after it."""
    model = capture(small.module, small.args)
    position = {n: i for i, layer in enumerate(model.layers) for n in layer.nodes}
    for cut, nodes in zip(model.graph.cuts[1:-1], model.cut_nodes[1:-1], strict=True):
        expected = {
            n
            for n, i in position.items()
            if i <= cut.after and any(position.get(user, -1) > cut.after for user in n.users)
        }
        assert set(nodes) == expected


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.layers[0](x)
        y = self.layers[2](torch.relu(self.layers[1](skip)))
        return self.layers[3](y + skip)


def test_skip_is_carried_once_across_every_cut() -> None:
    graph = capture(Residual(), (torch.randn(2, 8),)).graph
    names = {layer.name: i for i, layer in enumerate(graph.layers)}
    by_after = {cut.after: cut for cut in graph.cuts}
    assert len(by_after[names["layers.0"]].tensors) == 1
    assert len(by_after[names["layers.1"]].tensors) == 2
    assert len(by_after[names["layers.2"]].tensors) == 2


def test_choice_has_both_ends_and_no_more_than_asked(small: ModelSpec) -> None:
    graph = capture(small.module, small.args).graph
    for most in (2, 3, 5, 50):
        chosen = choose_cuts(graph, most)
        assert chosen[0] == 0
        assert chosen[-1] == len(graph.cuts) - 1
        assert chosen == sorted(set(chosen))
        assert len(chosen) <= most
    with pytest.raises(CaptureError, match="too few"):
        choose_cuts(graph, 1)


class ValueDependent(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class FixedBatch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) * 2


class ConstantOutput(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x + 1, "scale": torch.ones(3)}


class ChangesItsInput(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 1
        return x * 2


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    "module",
    [ValueDependent, Branching, FixedBatch, ConstantOutput, ChangesItsInput, Counts],
)
def test_what_cannot_be_split_is_refused_in_words(module: type[torch.nn.Module]) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(module(), (torch.randn(2, 6),))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
