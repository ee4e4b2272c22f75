"""LSTM and GRU nodes become torch's own, in every form that exporters write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import graph, ints, node
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import ModelError
from splitpoint.partition.models.find import load_model

STEPS, INPUTS, HIDDEN = 5, 3, 4
GATES = {"LSTM": 4, "GRU": 3}


def recurrent(
    kind: str, path: Path, *, states: str = "", lengths: Any = None, bias: bool = True,
    batch: int | str = 1, **attributes: Any,
) -> str:  # fmt: skip
    """Steps come first in ONNX and the batch in splitpoint, so that the graph turns them twice."""
    draw = np.random.default_rng(0)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * HIDDEN
    weights: dict[str, Any] = {
        "w": draw.standard_normal((directions, rows, INPUTS)).astype(np.float32),
        "r": draw.standard_normal((directions, rows, HIDDEN)).astype(np.float32),
        "b": draw.standard_normal((directions, 2 * rows)).astype(np.float32),
        "s": np.full((directions, 1, HIDDEN), 0.5, np.float32),
        "l": lengths,
    }
    given = ["w", "r", "b" * bias, "l" * (lengths is not None), "s" * ("h" in states)]
    if kind == "LSTM":
        given.append("s" * ("c" in states))
        attributes.pop("linear_before_reset", None)
    nodes = [
        node("Transpose", "x", perm=[1, 0, 2], to="turned"),
        node(kind, "turned", *given, hidden_size=HIDDEN, to="steps last", name="net", **attributes),
        node("Transpose", "steps", perm=[2, 0, 1, 3], to="y", name="back"),
        node("Transpose", "last", perm=[1, 0, 2], to="z", name="last back"),
    ]
    used = {name: value for name, value in weights.items() if name in given}
    return graph(nodes, path, (batch, STEPS, INPUTS), weights=used, outputs=("y", "z"))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"bias": False, "direction": "reverse"},
        {"states": "h", "batch": "N"},
        {"states": "hc", "direction": "bidirectional"},
        {"lengths": np.array([STEPS], np.int32), "activations": None},
    ],
)
def test_forms(kind: str, form: dict[str, Any], tmp_path: Path) -> None:
    """Loading compares with onnxruntime, for single samples and for a batch of them."""
    given = form | {"linear_before_reset": 1}
    if "activations" in form:
        given["activations"] = ["Sigmoid", "Tanh", "Tanh"][: 3 if kind == "LSTM" else 2]
    spec = load_model(recurrent(kind, tmp_path / "m.onnx", **given))
    assert not spec.one_sample, spec.remarks
    assert spec.module(x=torch.randn(3, STEPS, INPUTS))["y"].shape[0] == 3


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.slow)])
def test_in_a_bundle(kind: str, tmp_path: Path) -> None:
    path = recurrent(
        kind, tmp_path / "m.onnx", states="hc", direction="bidirectional", linear_before_reset=1
    )
    manifest = compile_model(load_model(path), tmp_path / "m.split").manifest
    assert manifest.max_relative_error < 1e-4
    assert not manifest.unsupported_ops
    assert [layer.op for layer in manifest.layers if layer.name == "net"] == [kind.lower()]


REFUSED = {
    "clipped": ("LSTM", {"clip": 3.0}, "clips what its gates see"),
    "other activations": (
        "LSTM", {"activations": ["Relu", "Tanh", "Tanh"]}, r"has the activations \['Relu'"
    ),
    "several lengths": ("LSTM", {"lengths": np.array([3], np.int32)}, "sequences of several"),
    "Keras' old GRU": ("GRU", {}, "linear_before_reset=0.*reset_after"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_has_not(case: str, tmp_path: Path) -> None:
    kind, attributes, words = REFUSED[case]
    with pytest.raises(ModelError, match=rf"'net' \({kind}\).*{words}"):
        load_model(recurrent(kind, tmp_path / "m.onnx", **attributes))


def test_two_layers_as_torch_wrote_them(tmp_path: Path) -> None:
    """The batch is in a constant shape, behind the directions."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((2, 16, 3)).astype(np.float32),
        "r": draw.standard_normal((2, 16, 4)).astype(np.float32),
        "w2": draw.standard_normal((1, 16, 8)).astype(np.float32),
        "r2": draw.standard_normal((1, 16, 4)).astype(np.float32),
        "rows": ints(0, 0, -1),
        "one": ints(1),
    }
    nodes = [
        node("Transpose", "x", perm=[1, 0, 2], to="t"),
        node("LSTM", "t", "w", "r", hidden_size=4, direction="bidirectional", to="a", name="l1"),
        node("Transpose", "a", perm=[0, 2, 1, 3], to="b", name="beside"),
        node("Reshape", "b", "rows", to="c"),
        node("LSTM", "c", "w2", "r2", hidden_size=4, to="d", name="l2"),
        node("Squeeze", "d", "one", to="e"),
        node("Transpose", "e", perm=[1, 0, 2], name="back"),
    ]
    spec = load_model(graph(nodes, tmp_path / "m.onnx", (1, 5, 3), weights=weights))
    assert not spec.one_sample, spec.remarks
