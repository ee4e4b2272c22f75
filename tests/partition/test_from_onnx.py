"""ONNX files that are read answer as onnxruntime does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import WEIGHT, graph, ints, node
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.example_inputs import with_usable_inputs
from splitpoint.partition.errors import ModelError
from splitpoint.partition.from_onnx.model_file import read_onnx
from splitpoint.partition.from_onnx.module import OnnxModule
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model


class Net(torch.nn.Module):
    """Convolutions, a skip, pooling and a reshape by the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU6()
        )
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = torch.nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = torch.nn.functional.max_pool2d(y + self.second(y), 2)
        found: torch.Tensor = self.last(y.reshape(x.shape[0], -1))
        return found.softmax(-1)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether the batch is free: a small net as torch writes it."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    model, files = Net().eval(), {}
    for free in (False, True):
        files[free] = folder / f"{'free' if free else 'single'}.onnx"
        example = torch.randn(2 if free else 1, 3, 16, 16)
        shapes = {"x": {0: torch.export.Dim.DYNAMIC}} if free else None
        torch.onnx.export(
            model, (example,), files[free], input_names=["x"], output_names=["classes"],
            dynamic_shapes=shapes, external_data=False, verbose=False,
        )  # fmt: skip
    return files


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("free", [False, True])
def test_a_file_becomes_a_bundle(free: bool, nets: dict[bool, Path], tmp_path: Path) -> None:
    spec = load_model(str(nets[free]))
    manifest = compile_model(spec, tmp_path / "net.split").manifest
    assert [(s.name, s.shape) for s in manifest.boundaries[0].tensors] == [("x", (1, 3, 16, 16))]
    assert list(manifest.outputs) == ["classes"]
    assert manifest.max_relative_error < 1e-4
    assert len(manifest.boundaries) > 2


class Words(torch.nn.Module):
    """Tokens with a mask through torch's own attention, which puts the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(100, 16)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(self.embedding(ids), src_key_padding_mask=mask == 0)
        return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("free", [False, True])
def test_attention_with_masks(free: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.ones(2 if free else 1, 7, dtype=torch.int64)
    shapes = [{0: torch.export.Dim.DYNAMIC}] * 2 if free else None
    path = tmp_path / "words.onnx"
    torch.onnx.export(
        Words().eval(), (ids, ids), path, input_names=["ids", "mask"], dynamic_shapes=shapes,
        external_data=False, verbose=False,
    )  # fmt: skip
    spec = load_model(str(path))
    assert not spec.one_sample, spec.remarks
    if not free:
        manifest = compile_model(spec, tmp_path / "words.split", boundaries=3).manifest
        assert [s.name for s in manifest.boundaries[0].tensors] == ["ids", "mask"]
        assert manifest.max_relative_error < 1e-4


def test_layers_have_the_nodes_names(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x", "w", name="/stem/conv.1/Conv", to="a", pads=[1, 1, 1, 1]),
        node("Relu", "a", name="/stem/Relu"),
    ]
    spec = load_model(graph(nodes, tmp_path / "m.onnx", weights={"w": WEIGHT}))
    assert layers_of(spec) == ["stem_conv_1_Conv", "stem_Relu"]


def layers_of(spec: ModelSpec) -> list[str]:
    with_two = with_usable_inputs(spec)
    model = capture(with_two.module, (), with_two.kwargs, name_prefix=spec.layer_prefix)
    return [layer.name for layer in model.graph.layers]


CASES: dict[str, tuple[list[Any], dict[str, Any], tuple[int, ...], int]] = {
    "attention as torch writes it": (
        [
            node("Transpose", "x", name="rows first", to="a", perm=[1, 0, 2]),
            node("Reshape", "a", "heads", name="split", to="b"),
            node("Transpose", "b", name="heads first", to="c", perm=[1, 0, 2]),
            node("Softmax", "c", to="d", axis=1),
            node("Transpose", "d", name="rows again", to="e", perm=[1, 0, 2]),
            node("Reshape", "e", "rows", name="join", to="f"),
            node("MatMul", "f", "w", to="g"),
            node("Reshape", "g", "samples", name="part", to="h"),
            node("Transpose", "h", perm=[1, 0, 2]),
        ],
        {
            "heads": ints(4, 2, 3),
            "rows": ints(4, 6),
            "samples": ints(4, 1, 5),
            "w": WEIGHT.reshape(-1)[:30].reshape(6, 5),
        },
        (1, 4, 6),
        13,
    ),
    "a bias that is reshaped": (
        [
            node("Reshape", "b", "s", to="a"),
            node("Add", "x", "a"),
        ],
        {"b": np.array([0.25, -1.5, 3], np.float32), "s": ints(1, -1, 1, 1)},
        (1, 3, 2, 2),
        11,
    ),
    "pads in pairs": (
        [
            node("Shape", "x", to="n"),
            node("Gather", "n", "last", to="width", name="pick"),
            node("Sub", "eight", "width", to="missing"),
            node("Unsqueeze", "missing", "axis", to="row"),
            node("Concat", "row", "none", to="pair", axis=0, name="join"),
            node(
                "Concat", "none", "none", "none", "none", "none", "none", "pair", axis=0, to="all"
            ),
            node("Reshape", "all", "pairs", to="two", name="two"),
            node("Transpose", "two", to="turned", perm=[1, 0]),
            node("Slice", "turned", "from", "until", "axis", "back", to="reversed"),
            node("Reshape", "reversed", "flat", to="pads", name="flat"),
            node("Pad", "x", "pads"),
        ],
        {
            "last": np.array(3),
            "eight": np.array(8),
            "axis": ints(0),
            "none": ints(0),
            "pairs": ints(4, 2),
            "from": ints(-1),
            "until": ints(-9),
            "back": ints(-1),
            "flat": ints(-1),
        },
        (1, 3, 4, 5),
        13,
    ),
    "a token before the others": (
        [node("Concat", "t", "x", axis=1)],
        {"t": np.ones((1, 1, 4), np.float32)},
        (1, 3, 4),
        18,
    ),
    "squeezed without axes": ([node("Squeeze", "x")], {}, (1, 3, 1, 4), 12),
    "asymmetric pads": (
        [node("Conv", "x", "w", pads=[0, 0, 1, 1], strides=[2, 2])],
        {"w": WEIGHT},
        (1, 3, 8, 8),
        22,
    ),
    "same padding": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        {},
        (1, 3, 8, 8),
        12,
    ),
    "average of what is there": (
        [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])],
        {},
        (1, 3, 7, 7),
        19,
    ),
    "a slice backwards": (
        [node("Slice", "x", "s", "e", "a", "t")],
        {"s": ints(-1), "e": ints(-100), "a": ints(3), "t": ints(-2)},
        (1, 3, 4, 8),
        13,
    ),
    "softmax over the rest": ([node("Softmax", "x", axis=1)], {}, (1, 3, 4), 11),
    "upsampled": (
        [node("Upsample", "x", "s", mode="nearest")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        (1, 3, 4, 4),
        9,
    ),
    "clipped by attributes": ([node("Clip", "x", min=-0.5, max=0.5)], {}, (1, 3, 4, 4), 9),
    "mirrored at the sides": (
        [node("Pad", "x", "p", mode="reflect")],
        {"p": ints(0, 0, 0, 1, 0, 0, 0, 2)},
        (1, 3, 4, 5),
        13,
    ),
    "picked by small integers": (
        [node("GatherElements", "x", "i", axis=1, to="a"), node("GatherND", "a", "j")],
        {"i": np.array([[-1, 0, 1]], np.int32), "j": ints(0, 2).reshape(1, 2)},
        (1, 4),
        13,
    ),
    "one-hot of what may be out of range": (
        [
            node("ArgMax", "x", axis=1, to="a"),
            node("Mul", "a", "k", to="b"),
            node("OneHot", "b", "d", "v"),
        ],
        {"k": ints(5), "d": np.array(4), "v": np.float32([2, 5])},
        (1, 4),
        13,
    ),
    "put at the end": (
        [node("ScatterElements", "x", "i", "u", axis=1)],
        {"i": ints(-1, 0).reshape(1, 2), "u": np.float32([[5, 6]])},
        (1, 4),
        16,
    ),
    "a column for each row": (
        [node("Gemm", "x", "w", "c")],
        {"w": WEIGHT.reshape(-1)[:12].reshape(3, 4), "c": np.float32([[1], [2], [3], [4]])},
        (4, 3),
        13,
    ),
    "two of three parts": (
        [
            node("Split", "x", "parts", axis=1, to="a b c"),
            node("Add", "a", "c"),
        ],
        {"parts": ints(2, 1, 2)},
        (1, 5, 3),
        13,
    ),
    "windows in the padding": (
        [node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1)],
        {},
        (1, 3, 7, 8),
        17,
    ),
    "its own selu": ([node("Selu", "x", alpha=1.2, gamma=1.1)], {}, (1, 5), 14),
    "arcs": ([node("Asinh", "x", to="a"), node("Atan", "a")], {}, (1, 5), 14),
    "a fixed batch of ten": ([node("Reshape", "x", "s")], {"s": ints(10, 12)}, (10, 3, 4), 14),
}


# Their constants are those of one sample.
ALONE = ("picked by small integers", "put at the end", "a column for each row")


@pytest.mark.parametrize("case", CASES)
def test_operators(case: str, tmp_path: Path) -> None:
    """Loading compares with onnxruntime, for single samples and for a batch of them."""
    nodes, weights, shape, opset = CASES[case]
    path = graph(nodes, tmp_path / "m.onnx", shape, opset=opset, weights=weights)
    spec = load_model(path)
    if case in ALONE:
        assert spec.one_sample
    else:
        spec.module(x=torch.randn(3 * shape[0], *shape[1:]))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("way", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("size", [(16, 24), (11, 5)])
def test_resize(mode: str, way: str, size: tuple[int, int], tmp_path: Path) -> None:
    resize = node(
        "Resize", "x", "", "", "s", mode=mode, coordinate_transformation_mode=way,
        nearest_mode="floor" if way == "asymmetric" else "round_prefer_floor",
    )  # fmt: skip
    path = graph([resize], tmp_path / "m.onnx", weights={"s": ints(1, 3, *size)})
    if mode == "cubic" and way == "asymmetric":
        with pytest.raises(ModelError, match="cubic way that torch has not"):
            load_model(path)
    else:
        assert load_model(path).module(x=torch.zeros(2, 3, 8, 8))["y"].shape == (2, 3, *size)


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    half = {"w": WEIGHT.astype(np.float16)}
    path = graph(
        [node("Conv", "x", "w")], tmp_path / "m.onnx", weights=half, kind=TensorProto.FLOAT16
    )
    spec = load_model(path)
    assert spec.kwargs["x"].dtype == torch.float32
    assert spec.module(**spec.kwargs)["y"].dtype == torch.float32


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 15, 18, 19, 21, 22])
def test_opsets(opset: int, tmp_path: Path) -> None:
    """What moved from attributes to inputs, or got another meaning."""
    by_input = opset >= 13
    weights: dict[str, Any] = {"w": WEIGHT, "high": np.float32(2), "low": np.float32(-1)}
    weights |= {"axis": ints(2), "parts": ints(1, 3), "pads": ints(0, 0, 1, 0, 0, 2)}
    nodes = [
        node("Conv", "x", "w", to="a", kernel_shape=[3, 3]),
        node("Clip", "a", "low", "high", to="b")
        if opset >= 11
        else node("Clip", "a", min=-1.0, max=2.0, to="b"),
        node("Softmax", "b", axis=-1, to="c")
        if opset >= 13
        else node("Softmax", "b", axis=1, to="c"),
        node("ReduceMean", "c", "axis", keepdims=0, to="d")
        if opset >= 18
        else node("ReduceMean", "c", axes=[2], keepdims=0, to="d"),
        node("Split", "d", "parts", axis=1, to="e f")
        if by_input
        else node("Split", "d", axis=1, split=[1, 3], to="e f"),
        node("Unsqueeze", "f", "axis", to="g")
        if by_input
        else node("Unsqueeze", "f", axes=[2], to="g"),
        node("Squeeze", "g", "axis", to="h")
        if by_input
        else node("Squeeze", "g", axes=[2], to="h"),
        node("Pad", "h", "pads", to="i")
        if opset >= 11
        else node("Pad", "h", pads=[0, 0, 1, 0, 0, 2], to="i"),
        node("Dropout", "i", to="j"),
        node("Flatten", "j"),
    ]
    used = {name for part in nodes for name in part.input}
    weights = {name: value for name, value in weights.items() if name in used}
    spec = load_model(graph(nodes, tmp_path / "m.onnx", opset=opset, weights=weights))
    assert not spec.one_sample, spec.remarks


def test_inputs_whose_names_python_would_confuse(tmp_path: Path) -> None:
    names = ("a.b", "a_b", "class", "self", "0")
    nodes = [node("Add", "x", "a.b", to="s0")]
    for index, name in enumerate(names[1:]):
        last = index + 2 == len(names)
        nodes.append(node("Mul", f"s{index}", name, to="y" if last else f"s{index + 1}", name=name))
    path = graph(nodes, tmp_path / "m.onnx", (1, 4), others=dict.fromkeys(names, (1, 4)))
    spec = load_model(path)
    assert [*spec.kwargs] == ["x", "a_b", "a_b_", "input_class", "input_self", "input_0"]
    assert len(layers_of(spec)) == 5


def test_weights_that_are_computed_of_constants_are_folded(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "w", to="s"),
        node("ConstantOfShape", "s", to="ones"),
        node("Add", "w", "ones", to="w1"),
        node("Mul", "w1", "half", to="w2"),
        node("Conv", "x", "w2"),
    ]
    weights = {"w": WEIGHT, "half": np.float32(0.5)}
    spec = load_model(graph(nodes, tmp_path / "m.onnx", weights=weights))
    assert layers_of(spec) == ["conv"]


def test_thousands_of_nodes_may_share_one_name(tmp_path: Path) -> None:
    """Each gets one of its own, and no search for it takes longer than the one before."""
    count, seconds = 4_000, []
    for name in (lambda place: f"add_{place}", lambda place: "add"):
        nodes = [node("Relu", f"t{i}", name=name(i), to=f"t{i + 1}") for i in range(count)]
        nodes.append(node("Identity", f"t{count}"))
        model = read_onnx(Path(graph([node("Relu", "x", to="t0"), *nodes], tmp_path / "m.onnx")))
        start = time.perf_counter()
        parts = list(OnnxModule(model, 1).nodes)
        seconds.append(time.perf_counter() - start)
    assert parts[1:4] == ["add", "add_2", "add_3"]
    assert len(parts) == count + 2
    assert seconds[1] < 2 * seconds[0] + 1
