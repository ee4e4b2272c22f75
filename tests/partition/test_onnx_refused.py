"""ONNX files that cannot be read are refused in one line that names the node or the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Command
from onnx import TensorProto, helper
from onnx_graphs import WEIGHT, graph, ints, node
from splitpoint.partition.errors import ModelError
from splitpoint.partition.from_onnx.model_file import read_onnx
from splitpoint.partition.from_onnx.module import OnnxModule
from splitpoint.partition.models.find import load_model


def test_weights_beside_the_file(tmp_path: Path) -> None:
    path = Path(graph([node("Conv", "x", "w")], tmp_path / "m.onnx", weights={"w": WEIGHT}))
    model = onnx.load_model(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    load_model(str(path))
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"'w' of .* lies in 'w.bin', which is cut off"):
        load_model(str(path))
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w.bin', which is not there"):
        load_model(str(path))


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "link.bin", "a\0b", "loop.bin", "sub/../../w.bin"]
)
def test_weights_outside_of_the_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    path = Path(graph([node("Conv", "x", "w")], folder / "m.onnx", weights={"w": WEIGHT}))
    model = onnx.load_model(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside of its folder"):
        load_model(str(path))


def branch() -> Any:
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "b",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    return node("If", "c", name="choice", then_branch=made, else_branch=made)


REFUSED: dict[str, tuple[list[Any], tuple[Any, ...], str]] = {
    "control flow": ([branch()], (1, 4), r"'choice' branches or loops.*\(If\).*torch.where"),
    "unknown": ([node("Det", "x", name="find")], (1, 4, 4), "'find' is the operation Det"),
    "sizes of values": (
        [node("NonZero", "x", name="find", to="i"), node("Cast", "i")],
        (1, 4),
        r"'find' \(NonZero\) makes sizes of tensors' values.*without NMS",
    ),
    "weights in 8 bits": (
        [node("DequantizeLinear", "bytes", "w", name="dq", to="a"), node("Add", "x", "a")],
        (1, 4),
        r"quantised already \(node 'dq', DequantizeLinear\)",
    ),
    "constant output": (
        [node("Identity", "w", name="same")],
        (1, 4),
        "the output 'y' does not depend on the graph's input",
    ),
    "an output that torch has not": (
        [
            node("LayerNormalization", "x", "four", name="norm", to="a mean"),
            node("Add", "a", "mean"),
        ],
        (1, 4),
        r"'norm' \(LayerNormalization\) also returns 'mean'",
    ),
    "quantised": (
        [node("QuantizeLinear", "x", "w", name="q", to="a"), node("DequantizeLinear", "a", "w")],
        (1, 4),
        r"quantised already \(node 'q', QuantizeLinear\).*--int8",
    ),
    "free size": (
        [node("Relu", "x")],
        ("batch", 3, "height", 32),
        r"its dimension 2 \(height\) has no size.*--input_shape 1,3,SIZE2,32",
    ),
    "no batch": ([node("Relu", "x")], (), "'x' of .* has no dimensions"),
    "huge": ([node("Relu", "x")], (1, 1 << 40), "more than a sample can be"),
    "values decide": (
        [node("Cast", "x", to="i"), node("Reshape", "x", "i", name="shape")],
        (4,),
        "'shape' .* takes a size of the values of a tensor",
    ),
}
for case, to in (("values decide", 7), ("sizes of values", 1)):
    place = 0 if case == "values decide" else 1
    REFUSED[case][0][place].attribute.add(name="to", type=onnx.AttributeProto.INT, i=to)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path, command: Command) -> None:
    nodes, shape, words = REFUSED[case]
    weights = {
        "w": np.float32(0.1),
        "c": np.array(True),
        "bytes": np.array([1, 2, 3, 4], np.uint8),
        "four": np.ones(4, np.float32),
    }
    path = graph(nodes, tmp_path / "m.onnx", shape, weights=weights)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    done = command("compile", path, "--out", tmp_path / "m.split")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kept", [0, 1, 100, 500, -1, -40])
def test_truncated(kept: int, tmp_path: Path) -> None:
    path = Path(graph([node("Conv", "x", "w")], tmp_path / "m.onnx", weights={"w": WEIGHT}))
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(ModelError, match=r"no ONNX model|no ONNX graph|no valid ONNX|no inputs"):
        load_model(str(path))


def test_no_onnx_file_at_all(tmp_path: Path) -> None:
    path = tmp_path / "words.onnx"
    path.write_text("these are words, and no graph\n" * 20)
    with pytest.raises(ModelError, match="no ONNX"):
        load_model(str(path))


def test_a_difference_is_said_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splitpoint.partition.onnx_operators.operators import OPERATORS

    wrong = OPERATORS["Tanh"]
    monkeypatch.setitem(OPERATORS, "Relu", wrong)
    path = graph([node("Relu", "x")], tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"from onnxruntime by \d\.\de[-+]\d\d of the larg"):
        load_model(path)


def test_a_choice_that_rounding_turns_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One runtime's rounding is played by another function."""
    from splitpoint.partition.onnx_operators.operators import OPERATORS

    monkeypatch.setitem(OPERATORS, "Relu", OPERATORS["Tanh"])
    nodes = [node("Relu", "x", to="a"), node("TopK", "a", "k", to="y places", name="best")]
    path = graph(nodes, tmp_path / "m.onnx", weights={"k": ints(2)})
    with pytest.raises(ModelError, match=r"'best' \(TopK\) chooses.*what it chooses from"):
        load_model(path)


def test_weights_come_with_the_file(tmp_path: Path) -> None:
    path = graph([node("Relu", "x")], tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="carries its own weights"):
        load_model(path, "w.safetensors")


def test_weights_outside_of_the_folder_in_a_branch(tmp_path: Path) -> None:
    """They would be read before the branch is refused."""
    inner = onnx.numpy_helper.from_array(WEIGHT.reshape(-1)[:4], "inner")
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="../secret.bin")
    made = branch()
    for attribute in made.attribute:
        attribute.g.initializer.append(inner)
    path = Path(graph([node("Relu", "x")], tmp_path / "m.onnx", (1, 4)))
    model = onnx.load_model(path)
    del model.graph.node[:]
    model.graph.node.append(made)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'inner' outside of its folder"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("kind", "word"), [(TensorProto.STRING, "STRING"), (TensorProto.BFLOAT16, "BFLOAT16")]
)
def test_inputs_that_cannot_be_sent(kind: int, word: str, tmp_path: Path) -> None:
    path = graph([node("Identity", "x")], tmp_path / "m.onnx", (1, 4), kind=kind)
    with pytest.raises(ModelError, match=f"'x' of .* is of type {word}, which cannot be sent"):
        load_model(path)


def test_a_constant_that_is_expanded_beyond_memory_is_no_constant(tmp_path: Path) -> None:
    """64 GB, of one number: it is not written out to be looked at."""
    nodes = [
        node("Expand", "one", "size", to="large"),
        node("Slice", "large", "from", "to", to="some"),
        node("Add", "x", "some"),
    ]
    weights = {"one": np.ones(1, np.float32), "size": ints(1 << 34), "from": ints(0), "to": ints(8)}
    model = read_onnx(Path(graph(nodes, tmp_path / "m.onnx", weights=weights)))
    assert len(OnnxModule(model, 1).nodes) == 3
