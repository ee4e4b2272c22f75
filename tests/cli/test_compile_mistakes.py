"""What cannot be compiled is refused in one line, with exit code 1, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Command
from onnx_graphs import WEIGHT, graph, ints, node

LOGITS = [
    node("Conv", "x", "w", to="a"),
    node("GlobalAveragePool", "a", to="b"),
    node("Flatten", "b"),
]


def photos(path: Path, shape: Any = (1, 3, 8, 8)) -> str:
    """A classifier of 4 classes."""
    return graph(LOGITS, path, shape, weights={"w": WEIGHT})


def no_onnx(path: Path) -> list[str]:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9)
    return [str(path)]


def truncated(path: Path) -> list[str]:
    whole = Path(photos(path)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return [str(path)]


def empty(path: Path) -> list[str]:
    path.write_bytes(b"")
    return [str(path)]


def weights_elsewhere(path: Path) -> list[str]:
    model = onnx.load_model(photos(path))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../w.bin")
    path.write_bytes(model.SerializeToString())
    return [str(path)]


def unknown_operation(path: Path) -> list[str]:
    return [graph([node("Det", "x", name="find")], path, (1, 4, 4))]


def operation_of_somebody(path: Path) -> list[str]:
    model = onnx.load_model(graph([node("Relu", "x", name="find")], path, (1, 4, 4)))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Warp\x1b[2J", "com.me"
    model.opset_import.add(domain="com.me", version=1)
    path.write_bytes(model.SerializeToString())
    return [str(path)]


def loop(path: Path) -> list[str]:
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["b"])],
        "b",
        [],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None)],
    )
    nodes = [node("If", "c", name="choice", then_branch=made, else_branch=made)]
    return [graph(nodes, path, (1, 4), weights={"c": np.array(True)})]


def labels_of_others(path: Path) -> list[str]:
    names = path.with_name("names.txt")
    names.write_text("cat\ndog\ncow\n")
    return [photos(path), "--input-size", "8", "--labels", str(names)]


def no_labels(path: Path) -> list[str]:
    return [photos(path), "--input-size", "8", "--labels", str(path.with_name("names.txt"))]


def a_head_of_others(path: Path) -> list[str]:
    return [photos(path), "--input-size", "8", "--head", "yolo"]


def a_head_of_pictures(path: Path) -> list[str]:
    nodes = [node("Identity", "x", to="logits"), node("Slice", "x", "0", "4", "2", to="boxes")]
    weights = {"0": ints(0), "4": ints(4), "2": ints(2)}
    made = graph(nodes, path, (1, 9, 5), weights=weights, outputs=("logits", "boxes"))
    return [made, "--head", "detr"]


def too_small(path: Path) -> list[str]:
    return [photos(path), "--input-size", "2x2"]


def no_size(path: Path) -> list[str]:
    return [photos(path, (1, 3, "height", "width")), "--channels", "bgr"]


def a_size_of_words(path: Path) -> list[str]:
    return [photos(path), "--input-size", "large"]


def too_large(path: Path) -> list[str]:
    return [photos(path), "--input-size", "99999"]


def pictures_of_four_channels(path: Path) -> list[str]:
    return [graph([node("Relu", "x")], path, (1, 4, 8, 8)), "--input-size", "8"]


MISTAKES: dict[Callable[[Path], list[str]], tuple[str, ...]] = {
    no_onnx: ("is no ONNX model", "torch.onnx.export"),
    truncated: ("is no ONNX model, or not all of one",),
    empty: ("holds no ONNX graph",),
    weights_elsewhere: ("the weight 'w' outside of its folder, in '../w.bin'",),
    unknown_operation: ("the node 'find' is the operation Det", "not supported"),
    operation_of_somebody: ("the node 'find' is the operation com.me.Warp\\x1b[2J",),
    loop: ("'choice' branches or loops inside of the graph (If)", "torch.where"),
    labels_of_others: ("tells 4 classes, and 3 labels",),
    no_labels: ("cannot read", "names.txt", "a class a line"),
    a_head_of_others: ("'y' float32 [batch, 4]", "floats [batch, 4 + classes, boxes]"),
    a_head_of_pictures: ("the head detr needs the size of the model's input",),
    too_small: ("cannot take pictures of 2x2", "--input-size"),
    no_size: ("leaves the pictures' size free", "--input-size HEIGHTxWIDTH"),
    a_size_of_words: ("'large' is no size", "write 640 or 480x640"),
    too_large: ("pictures of 99999x99999", "sides of 1 to 16384"),
    pictures_of_four_channels: ("float32 [1, 4, 8, 8], and no picture",),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_one_line_says_what_is_wrong(
    mistake: Callable[[Path], list[str]], tmp_path: Path, command: Command
) -> None:
    arguments = mistake(tmp_path / "m.onnx")
    done = command("compile", *arguments, "--out", tmp_path / "out" / "m.split")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert done.stderr.splitlines()[-1] == line
    assert line.startswith("error: ")
    assert line.isprintable()
    assert ": " in line.removeprefix("error: ")  # a remedy
    for words in MISTAKES[mistake]:
        assert words in line
    assert done.stdout == ""
    assert not list(tmp_path.glob("out/*"))
