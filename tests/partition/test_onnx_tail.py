"""Graphs with a built-in NMS are cut before it, and what crosses there is the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command
from onnx import TensorProto, helper
from onnx_graphs import graph, ints, node
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.errors import ModelError
from splitpoint.partition.models.find import load_model

ROWS = 4 + 2  # boxes and classes of each place
W = np.random.default_rng(0).standard_normal((ROWS, 3, 3, 3)).astype(np.float32)
WEIGHTS: dict[str, Any] = {
    "w": W,
    "boxes, rest": ints(4, 2),
    "flat": ints(1, ROWS, 36),
    "few": np.array(10),
    "overlap": np.array(0.5, np.float32),
    "level": np.array(0.1, np.float32),
    "picks": ints(2),
    "first": np.array(0),
}
# [1, 6, 36] as detectors give it, turned, taken apart, and chosen from.
HEAD = [
    node("Conv", "x", "w", to="a"),
    node("Sigmoid", "a", to="b"),
    node("Reshape", "b", "flat", to="places"),
]
TAIL = [
    node("Transpose", "places", perm=[0, 2, 1], to="rows"),
    node("Split", "rows", "boxes, rest", axis=2, to="boxes scores"),
    node("Transpose", "scores", perm=[0, 2, 1], to="by_class", name="turn"),
    node("NonMaxSuppression", "boxes", "by_class", "few", "overlap", "level", to="picked"),
    node("Gather", "picked", "picks", axis=1, to="index", name="pick"),
    node("Gather", "boxes", "index", axis=1, to="y", name="chosen"),
]


def test_the_answer_is_what_it_would_choose_from(tmp_path: Path, command: Command) -> None:
    path = graph([*HEAD, *TAIL], tmp_path / "m.onnx", (1, 3, 8, 8), weights=WEIGHTS)
    done = command("compile", path, "--out", tmp_path / "m.split")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "is cut before" in line]
    assert "'nonmaxsuppression' (NonMaxSuppression)" in line
    assert "its outputs are 'places'" in line
    manifest = open_bundle(tmp_path / "m.split").manifest
    assert list(manifest.outputs) == ["places"]
    assert manifest.boundaries[-1].tensors[0].shape == (1, ROWS, 36)
    assert not manifest.boundaries[0].one_sample


def test_boxes_and_scores_that_come_apart(tmp_path: Path) -> None:
    """As in SSD: there is no one tensor before the tail, so that two cross."""
    nodes = [
        HEAD[0],
        node("Reshape", "a", "flat", to="all"),
        node("Transpose", "all", perm=[0, 2, 1], to="rows"),
        node("Split", "rows", "boxes, rest", axis=2, to="raw logits"),
        node("MatMul", "raw", "square", to="boxes"),
        node("Softmax", "logits", axis=2, to="scores"),
        *TAIL[2:],
    ]
    weights = WEIGHTS | {"square": np.eye(4, dtype=np.float32)}
    spec = load_model(graph(nodes, tmp_path / "m.onnx", (1, 3, 8, 8), weights=weights))
    assert list(spec.module(**spec.kwargs)) == ["boxes", "scores"]


def test_other_outputs_stay(tmp_path: Path) -> None:
    path = graph(
        [*HEAD, *TAIL], tmp_path / "m.onnx", (1, 3, 8, 8), weights=WEIGHTS, outputs=("b", "y")
    )
    spec = load_model(path)
    assert list(spec.module(**spec.kwargs)) == ["b", "places"]


def test_an_input_that_only_the_tail_reads_is_gone(tmp_path: Path) -> None:
    nodes = [*HEAD, *TAIL[:-1], node("Mul", "found", "scale", name="back")]
    nodes.insert(-1, node("Gather", "boxes", "index", axis=1, to="found", name="chosen"))
    path = graph(
        nodes, tmp_path / "m.onnx", (1, 3, 8, 8), weights=WEIGHTS, others={"scale": (1, 1, 1, 1)}
    )
    assert list(load_model(path).kwargs) == ["x"]


def test_what_nobody_reads_does_no_harm(tmp_path: Path) -> None:
    nodes = [*HEAD, node("NonZero", "b", to="unread"), node("Identity", "places")]
    spec = load_model(graph(nodes, tmp_path / "m.onnx", (1, 3, 8, 8), weights=WEIGHTS))
    assert not spec.remarks


def test_a_choice_in_the_middle_of_the_model_is_refused(tmp_path: Path) -> None:
    nodes = [
        *HEAD,
        *TAIL[:-1],
        node("Gather", "b", "first", axis=0, to="picture", name="one"),
        node("Gather", "picture", "index", axis=1, to="part", name="part"),
        node("Conv", "b", "w2", to="c", name="next"),
        node("Gather", "c", "index", axis=2, to="d", name="again"),
        node("Conv", "d", "w3", name="late"),
    ]
    weights = WEIGHTS | {"w2": W[:, :1].repeat(2, 1).repeat(3, 1), "w3": W[:, :1].repeat(6, 1)}
    path = graph(nodes, tmp_path / "m.onnx", (1, 3, 8, 8), weights=weights)
    with pytest.raises(ModelError, match=r"'nonmaxsuppression' .*no segment.*without NMS"):
        load_model(path)


def test_a_loop_behind_it_goes_with_it(tmp_path: Path) -> None:
    """Its graph reads what was chosen, without naming it as an input."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["picked"], ["inner"])],
        "b",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.INT64, None)],
    )
    nodes = [
        *HEAD,
        *TAIL[:4],
        node("If", "yes", then_branch=body, else_branch=body, to="some", name="choice"),
        node("Cast", "some", to="y", name="float"),
    ]
    nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    path = graph(
        nodes, tmp_path / "m.onnx", (1, 3, 8, 8), weights=WEIGHTS | {"yes": np.array(True)}
    )
    assert list(load_model(path).module(**load_model(path).kwargs)) == ["places"]
