"""A hostile program is data that is refused, never code that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from splitpoint.codec import TensorSpec
from splitpoint.partition.errors import BundleError
from splitpoint.partition.run.program import load_program

SPEC = TensorSpec(name="x", dtype="float32", shape=(1, 4), batch_dim=0)


def program(**over: object) -> dict[str, object]:
    node = {"name": "y", "op": "aten.relu.default", "args": [{"t": "x"}], "kwargs": {}} | over
    return {"inputs": ["x"], "outputs": ["y"], "weights": [], "nodes": [node]}


def load(document: dict[str, object]) -> torch.fx.GraphModule:
    return load_program(json.loads(json.dumps(document)), [SPEC], {}, torch.device("cpu"))


def test_good_program_runs() -> None:
    (y,) = load(program())(torch.tensor([[-1.0, 2.0, -3.0, 4.0]]))
    assert y.tolist() == [[0, 2, 0, 4]]


def test_batch_size_is_recomputed_from_the_input() -> None:
    document = program(op="aten.new_zeros.default", args=[{"t": "x"}, [{"batch": 6}, 2]])
    (y,) = load(document)(torch.ones(3, 4))
    assert y.shape == (18, 2)


@pytest.mark.parametrize(
    "over",
    [
        {"op": "aten.from_file.default", "args": ["/etc/passwd"]},
        {"op": "aten.relu_.default"},
        {"op": "aten.__class__.__init__"},
        {"op": "prims.fill.default"},
        {"op": "os.system"},
        {"op": "aten.relu"},
        {"op": "aten.relu.nothing"},
        {"op": 5},
        {"args": [{"t": "unknown"}]},
        {"args": [{"w": "unknown"}]},
        {"args": [{"dtype": "__import__"}]},
        {"args": [{"dtype": "save"}]},
        {"args": [{"spam": 1}]},
        {"args": [{}]},
        {"args": [{"t": "x", "w": "x"}]},
        {"args": None},
        {"name": "x; import os"},
        {"kwargs": {"unknown": 1}},
        {"kwargs": {"self=print('pwned')) or dict(self": 1}},
        {"op": "getitem", "args": [{"t": "x"}, 0], "kwargs": {"a": 1}},
    ],
)
def test_hostile_program(over: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        load(program(**over))


@pytest.mark.parametrize("field", ["inputs", "outputs", "weights", "nodes"])
def test_missing_field(field: str) -> None:
    document = program()
    del document[field]
    with pytest.raises(BundleError):
        load(document)


def test_keyword_cannot_smuggle_code(tmp_path: Path) -> None:
    """fx pastes keywords into source; what is no keyword of the operation never gets there."""
    marker = tmp_path / "pwned"
    key = f"alpha=__import__('pathlib').Path({str(marker)!r}).touch() or 1) or dict(b"
    document = program(op="aten.add.Tensor", args=[{"t": "x"}, 1], kwargs={key: 1})
    with pytest.raises(BundleError, match="keyword"):
        load(document)(torch.ones(1, 4))
    assert not marker.exists()
