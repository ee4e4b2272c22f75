"""What programs say of the numbers that they take as indices."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from index_models import PLACES, WORDS, indexed_bundle
from safetensors.numpy import save_file
from splitpoint.codec import SpecError, TensorSpec
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.errors import BundleError
from splitpoint.partition.run.index_ranges import Indexes, IndexRange
from splitpoint.partition.run.read_indexes import read_indexes

ROWS = 9
Nodes = list[dict[str, Any]]


def t(name: str) -> dict[str, str]:
    return {"t": name}


TABLE, IDS = {"w": "table"}, t("ids")


def node(name: str, op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "args": list(args), "kwargs": kwargs}


def looked_up(index: Any, name: str = "y") -> dict[str, Any]:
    return node(name, "aten.embedding.default", TABLE, index)


def spec(name: str, dtype: str = "int64", *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(1, *(shape or (4,))), batch_dim=0)


def indexes(
    tmp_path: Path, segments: list[Nodes], *boundaries: list[TensorSpec], text: str = ""
) -> Indexes:
    """Of a bundle with these programs between these boundaries."""
    save_file({"table": np.zeros((ROWS, 3), np.float32)}, tmp_path / "weights")
    for number, nodes in enumerate(segments):
        program = {"weights": ["table"], "nodes": nodes}
        (tmp_path / str(number)).write_text(text or json.dumps(program))
    files = [SimpleNamespace(program=str(n), weights="weights") for n in range(len(segments))]
    manifest = SimpleNamespace(
        segments=files, boundaries=[SimpleNamespace(tensors=own) for own in boundaries]
    )
    bundle: Any = SimpleNamespace(
        folder=tmp_path, manifest=manifest, path=lambda file: tmp_path / file
    )
    return read_indexes(bundle)


def of_ids(low: int, high: int, *picks: tuple[int, Any], name: str = "ids") -> IndexRange:
    return IndexRange(name=name, low=low, high=high, picks=picks)


INT32, FLOAT = {"dtype": {"dtype": "int32"}}, {"dtype": {"dtype": "float32"}}
UINT8 = {"dtype": {"dtype": "uint8"}}
FOLLOWED: dict[str, tuple[Nodes, tuple[IndexRange, ...]]] = {
    "as it comes": ([looked_up(IDS)], (of_ids(0, 8),)),
    "reshaped": (
        [
            node("a", "aten.reshape.default", IDS, [{"batch": 4}]),
            node("b", "aten.unsqueeze.default", t("a"), -1),
            looked_up(t("b")),
        ],
        (of_ids(0, 8),),
    ),
    "cast": (
        [node("a", "aten._to_copy.default", IDS, **INT32), looked_up(t("a"))],
        (of_ids(0, 8),),
    ),
    "shifted": ([node("a", "aten.add.Tensor", IDS, 2), looked_up(t("a"))], (of_ids(-2, 6),)),
    "shifted back": ([node("a", "aten.sub.Tensor", IDS, 1), looked_up(t("a"))], (of_ids(1, 9),)),
    "clamped": ([node("a", "aten.clamp.default", IDS, 0, 8), looked_up(t("a"))], ()),
    "clamped below": (
        [node("a", "aten.clamp.default", IDS, 0), looked_up(t("a"))],
        (of_ids(-(1 << 63), 8),),
    ),
    "clamped above": (
        [node("a", "aten.clamp_max.default", IDS, 5), looked_up(t("a"))],
        (of_ids(0, (1 << 63) - 1),),
    ),
    "cast to less, then clamped below": (
        [
            node("a", "aten._to_copy.default", IDS, **INT32),
            node("b", "aten.clamp_min.default", t("a"), 0),
            looked_up(t("b")),
        ],
        (of_ids(-(1 << 31), 8),),  # beyond that it wraps
    ),
    "cast to bytes that are all taken": (
        [
            node("a", "aten._to_copy.default", IDS, **UINT8),
            node("b", "aten._to_copy.default", t("a"), **INT32),
            node("y", "aten.one_hot.default", t("b"), 256),
        ],
        (),
    ),
    "all of it": (
        [node("a", "aten.slice.Tensor", IDS, 0, 0, (1 << 63) - 1), looked_up(t("a"))],
        (of_ids(0, 8),),
    ),
    "a column": (
        [node("a", "aten.select.int", IDS, 1, 2), looked_up(t("a"))],
        (of_ids(0, 8, (1, 2)),),
    ),
    "columns": (
        [node("a", "aten.slice.Tensor", IDS, 1, 1, 3), looked_up(t("a"))],
        (of_ids(0, 8, (1, slice(1, 3, 1))),),
    ),
    "one of all columns": (
        [
            node("a", "aten.unbind.int", IDS, -1),
            node("b", "getitem", t("a"), 3),
            looked_up(t("b")),
        ],
        (of_ids(0, 8, (-1, 3)),),
    ),
    "a column of columns, shifted": (
        [
            node("a", "aten.slice.Tensor", IDS, 1, 1),
            node("b", "aten.add.Tensor", t("a"), 1),
            node("c", "aten.select.int", t("b"), 1, 0),
            node("d", "aten.unsqueeze.default", t("c"), 1),
            looked_up(t("d")),
        ],
        (of_ids(-1, 7, (1, slice(1, None, 1)), (1, 0)),),
    ),
    "counted from the end, as ONNX does": (
        [
            node("a", "aten.lt.Scalar", IDS, 0),
            node("b", "aten.add.Tensor", IDS, ROWS),
            node("c", "aten.where.self", t("a"), t("b"), IDS),
            looked_up(t("c")),
        ],
        (of_ids(-9, 8),),
    ),
    "twice": (
        [looked_up(IDS, "z"), node("a", "aten.add.Tensor", IDS, 2), looked_up(t("a"))],
        (of_ids(0, 6),),
    ),
    "into dimensions": (
        [node("y", "aten.index.Tensor", TABLE, [None, IDS])],
        (of_ids(-3, 2),),
    ),
    "along a dimension": ([node("y", "aten.index_select.default", TABLE, 1, IDS)], (of_ids(0, 2),)),
    "into all elements": ([node("y", "aten.take.default", TABLE, IDS)], (of_ids(-27, 26),)),
    "one-hot": ([node("y", "aten.one_hot.default", IDS, 7)], (of_ids(0, 6),)),
    "into another tensor that comes": (
        [node("y", "aten.gather.default", t("x"), 1, IDS)],
        (of_ids(0, 15),),
    ),
    "into a table that is turned": (
        [node("a", "aten.t.default", TABLE), node("y", "aten.embedding.default", t("a"), IDS)],
        (of_ids(0, 2),),
    ),
    "a weight": ([looked_up({"w": "places"})], ()),
    "a constant": (
        [
            node("a", "aten.arange.default", 4),
            node("b", "aten.mul.Tensor", t("a"), 2),
            looked_up(t("b")),
        ],
        (),
    ),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_indices_are_followed_to_the_tensors_that_come(case: str, tmp_path: Path) -> None:
    nodes, expected = FOLLOWED[case]
    entering = [spec("ids"), spec("x", "float32", 16)]
    found = indexes(tmp_path, [nodes], entering, [spec("y", "float32")])
    assert found.ranges.get(0, ()) == expected
    assert not found.unknown


UNKNOWN: dict[str, Nodes] = {
    "worked out": [node("a", "aten.mul.Tensor", IDS, IDS), looked_up(t("a"))],
    "from floats": [node("a", "aten._to_copy.default", t("x"), **INT32), looked_up(t("a"))],
    "through floats": [node("a", "aten._to_copy.default", IDS, **FLOAT), looked_up(t("a"))],
    "shifted by what comes": [node("a", "aten.add.Tensor", IDS, IDS), looked_up(t("a"))],
    "shifted in multiples": [node("a", "aten.add.Tensor", IDS, 2, alpha=3), looked_up(t("a"))],
    "a sum that may wrap": [
        node("a", "aten.add.Tensor", IDS, 2),
        node("b", "aten.clamp_min.default", t("a"), 0),
        looked_up(t("b")),
    ],
    "clamped to what is beyond": [node("a", "aten.clamp.default", IDS, 9), looked_up(t("a"))],
    "picked after it was reshaped": [
        node("a", "aten.reshape.default", IDS, [2, 2]),
        node("b", "aten.select.int", t("a"), 1, 0),
        looked_up(t("b")),
    ],
    "into what grows with the batch": [node("y", "aten.gather.default", t("x"), 0, IDS)],
    "into what was worked out": [
        node("a", "aten.relu.default", t("x")),
        node("y", "aten.gather.default", t("a"), 1, IDS),
    ],
    "cast to bytes that wrap": [
        node("a", "aten._to_copy.default", IDS, **UINT8),
        looked_up(t("a")),
    ],
    "bits as another type": [
        node("a", "aten.view.dtype", IDS, {"dtype": "int32"}),
        looked_up(t("a")),
    ],
    "bytes that wrap": [
        node("a", "aten.sub.Tensor", t("bytes"), 1),
        node("b", "aten._to_copy.default", t("a"), **INT32),
        looked_up(t("b")),
    ],
    "bytes, counted from the end": [
        node("a", "aten.lt.Scalar", t("bytes"), 0),
        node("b", "aten.add.Tensor", t("bytes"), ROWS),
        node("c", "aten.where.self", t("a"), t("b"), t("bytes")),
        looked_up(t("c")),
    ],
    "a mask": [node("y", "aten.index_put.default", t("x"), [t("mask")], {"w": "table"})],
    "a mask of bytes": [node("y", "aten.index_put.default", t("x"), [t("bytes")], {"w": "table"})],
    "the place of the largest": [node("a", "aten.argmax.default", t("x"), 1), looked_up(t("a"))],
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_told_is_said(case: str, tmp_path: Path) -> None:
    entering = [spec("ids"), spec("x", "float32", 16), spec("bytes", "uint8"), spec("mask", "bool")]
    found = indexes(tmp_path, [UNKNOWN[case]], entering, [spec("y", "float32")])
    assert found == Indexes({}, frozenset({("y", 0)}))


def test_an_index_behind_a_mask_may_be_one_of_another_dimension(tmp_path: Path) -> None:
    nodes = [node("y", "aten.index.Tensor", t("x"), [t("mask"), IDS])]
    entering = [spec("ids"), spec("x", "float32", 16), spec("mask", "bool")]
    found = indexes(tmp_path, [nodes], entering, [spec("y", "float32")])
    assert found == Indexes({}, frozenset({("y", 0), ("y", 1)}))


def test_a_boundary_has_the_ranges_of_what_lies_behind_it(tmp_path: Path) -> None:
    """The rest of the model needs not be told by tensors that went before."""
    first = [looked_up(IDS, "a"), node("twice", "aten.mul.Tensor", IDS, 2)]
    second = [node("shifted", "aten.add.Tensor", t("twice"), 1)]
    third = [looked_up(t("shifted"), "b"), looked_up(IDS, "c")]
    found = indexes(
        tmp_path,
        [first, second, third, [node("y", "aten.relu.default", t("b"))]],
        [spec("ids")],
        [spec("ids"), spec("twice"), spec("a", "float32")],
        [spec("ids"), spec("shifted", "int32")],
        [spec("ids"), spec("b", "float32")],
        [spec("y", "float32")],
    )
    ids = of_ids(0, 8)
    assert found.ranges[0] == (ids,)
    assert set(found.ranges[1]) == {ids, of_ids(-1, 7, name="twice")}
    assert set(found.ranges[2]) == {ids, of_ids(0, 8, name="shifted")}
    assert 3 not in found.ranges  # nothing behind it takes an index
    assert found.unknown == {("b", 0)}, "before the second boundary nobody can look at it"


def test_a_constant_that_crosses_a_boundary_is_what_a_client_says(tmp_path: Path) -> None:
    found = indexes(
        tmp_path,
        [[node("a", "aten.arange.default", 4)], [looked_up(t("a"))]],
        [spec("ids")],
        [spec("a")],
        [spec("y", "float32")],
    )
    assert found.ranges == {1: (of_ids(0, 8, name="a"),)}
    assert not found.unknown


def test_bytes_that_cannot_be_out_of_range_are_not_looked_at(tmp_path: Path) -> None:
    nodes = [
        node("a", "aten._to_copy.default", IDS, **INT32),
        node("y", "aten.one_hot.default", t("a"), 256),
    ]
    found = indexes(tmp_path, [nodes], [spec("ids", "uint8")], [spec("y")])
    assert found == Indexes()


def test_the_numbers_of_a_frame() -> None:
    one = of_ids(0, 8, (1, slice(1, None, 1)), (1, 0))
    one.check(np.array([[99, 8, -1], [99, 0, 70]]))
    one.check(np.zeros((0, 3), np.int64))
    for wrong in (9, -1, 1 << 40, -(1 << 63)):
        with pytest.raises(SpecError, match=f"'ids' has the index {wrong}, .* takes 0 to 8"):
            one.check(np.array([[0, 8, 0], [0, wrong, 0]]))
    with pytest.raises(SpecError, match="takes 8 at the most"):
        of_ids(-(1 << 63), 8).check(np.array([9]))
    with pytest.raises(SpecError, match="takes 3 at the least"):
        of_ids(3, (1 << 63) - 1).check(np.array([2]))


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"nodes": [{"name": "a", "op": "aten.gather.default", "args": []}], "weights": []}'],
    ids=["nothing", "no JSON", "no arguments"],
)
def test_programs_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError, match="is malformed"):
        indexes(tmp_path, [[]], [spec("ids")], [spec("y")], text=text or "\x00")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("a", "aten.relu.default", IDS), node("a", "aten.reshape.default", t("a"), [4])],
        [node("a", "aten.t.default", t("a")), node("y", "aten.gather.default", t("a"), 0, IDS)],
    ],
    ids=["an index", "what it goes into"],
)
def test_a_tensor_that_follows_from_itself(nodes: Nodes, tmp_path: Path) -> None:
    nodes = [*nodes, looked_up(t("a"), "z")]
    with pytest.raises(BundleError, match="is malformed"):
        indexes(tmp_path, [nodes], [spec("ids")], [spec("y", "float32")])


def test_the_indices_of_a_compiled_model() -> None:
    bundle: Bundle = indexed_bundle()
    found = read_indexes(bundle)
    ids = next(one.name for one in bundle.manifest.boundaries[0].tensors if one.dtype == "int64")
    assert set(found.ranges[0]) == {
        of_ids(0, WORDS - 1, (1, 0), name=ids),
        of_ids(-2, PLACES - 3, (1, 1), name=ids),
    }
    assert len(found.unknown) == 1, "the square"
