"""Which layer each value of an exported ONNX graph belongs to."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence

import onnx

from ..capture.layers import LayerNodes, op_name
from .export import WholeOnnx

_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"


def layer_names(whole: WholeOnnx, layers: Sequence[LayerNodes]) -> dict[str, str]:
    """ONNX value -> layer name, for the values whose origin the exporter recorded.

    The exporter notes the module and operation that each node comes from, in execution order. The
    same holds for the layers of that module, so the two sequences are aligned operation by
    operation; what matches none stays with the layer before it.
    """
    sequences: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for layer in layers:
        sequences[layer.path] += [(op_name(node), layer.name) for node in layer.nodes]
    cursor: dict[str, int] = defaultdict(int)
    seen: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for node in whole.model.graph.node:
        path, origin, op = _origin(node)
        if path not in sequences:
            continue
        if (path, origin) not in seen:
            steps = sequences[path]
            start = cursor[path]
            found = next((i for i in range(start, len(steps)) if steps[i][0] == op), None)
            if found is None:
                found = max(start - 1, 0)
            cursor[path] = found + 1
            seen[path, origin] = steps[found][1]
        names |= dict.fromkeys(filter(None, node.output), seen[path, origin])
    return names


def _origin(node: onnx.NodeProto) -> tuple[str, str, str]:
    """The module's path, the exported operation's own name, and its kind (`conv2d`)."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    classes = ast.literal_eval(notes.get(_CLASSES, "[]"))
    if len(scopes) < 2 or not classes:
        return "?", "", ""
    kind = classes[-1].split(".")
    return scopes[-2], scopes[-1], kind[1] if len(kind) > 1 else kind[0]
