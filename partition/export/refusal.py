"""What to tell of a segment that onnxruntime refuses while its model is being compiled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import onnx
from splitpoint.codec import SplitpointError

from ..bundle.bundle import Manifest
from ..capture.layers import LayerNodes, op_name
from ..errors import CaptureError

_NO_KERNEL = re.compile(r"implementation for (\w+)\(\d+\) node with name '([^']*)'")
_OPERATION = re.compile(r"OpOverload\(op='\w+\.(\w+)'")
_FLOATS = {  # that few operations of onnxruntime know
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
}


def refused(error: SplitpointError, manifest: Manifest, folder: Path) -> CaptureError:
    """Names the operation, its layer, and the dtype that is to blame if there is an odd one."""
    runtime = "onnxruntime, in which the device runs its segments,"
    dtypes = _odd_dtypes(manifest, folder)
    of = f" of {' or '.join(dtypes)}" if dtypes else ""
    remedy = "convert the model and its example inputs with .float()"
    found = _NO_KERNEL.search(error.what)
    if found is None:
        return CaptureError(
            f"{runtime} refuses the model{of and f', which computes in {of[4:]}'} ({error.what})",
            remedy if dtypes else "leave out the operation that is named, or write it in others",
        )
    operation, node = found.groups()
    ends = {spec.name: b.after for b in manifest.boundaries for spec in b.tensors}
    layer = node.rpartition("/")[0] or ends.get(node)  # LAYER/NUMBER, or a boundary's tensor
    where = f" (layer {layer!r})" if layer else ""
    return CaptureError(
        f"{runtime} has no {operation}{of}{where}",
        remedy if dtypes else "write that layer in other operations",
    )


def without_onnx_form(reason: str, layers: Sequence[LayerNodes]) -> CaptureError:
    """The `reason` why the export to ONNX failed, with the layer of the operation that it names."""
    found = _OPERATION.search(reason)
    if found is None:
        return CaptureError(
            f"the model cannot be exported to ONNX ({reason[:300]})",
            "the device runs its segments with onnxruntime: leave out what is named",
        )
    operation = found[1]
    here = next((one for one in layers if operation in map(op_name, one.nodes)), None)
    where = f"layer {here.name!r}" if here else "the model"
    return CaptureError(
        f"{where} has an operation without an ONNX form ({operation})",
        "write it in others; the device runs its segments with onnxruntime",
    )


def _odd_dtypes(manifest: Manifest, folder: Path) -> list[str]:
    """Those of `_FLOATS` in which a segment has weights or inputs, or to which it casts."""
    found = set()
    for segment in manifest.segments:
        graph = onnx.load(folder / segment.onnx, load_external_data=False).graph
        found |= {tensor.data_type for tensor in graph.initializer}
        found |= {value.type.tensor_type.elem_type for value in graph.input}
        casts = [node for node in graph.node if node.op_type == "Cast"]
        found |= {attribute.i for node in casts for attribute in node.attribute}
    return [name for dtype, name in _FLOATS.items() if dtype in found]
