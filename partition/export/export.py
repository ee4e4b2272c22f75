"""One ONNX export of the whole model, without the bytes of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir
import torch
from onnxscript.optimizer import optimize_ir
from splitpoint.codec import Array
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, OutputSpec, TensorArgument
from torch.fx import Node

from ..capture.capture import CapturedModel
from ..capture.recurrent import one_step_shapes
from ..quiet import quiet_torch
from .refusal import without_onnx_form

# Small tensors stay in the model: onnxruntime wants shapes and axes at hand when it optimises.
MIN_WEIGHT_BYTES = 1024


@dataclass(slots=True, kw_only=True)
class WholeOnnx:
    """The exported model, the ONNX value of each boundary node, and the large initializers.

    In `model` those are external tensors that lie nowhere yet; `weights` are their values, views of
    the module's own where it has them, so that no model is ever too large for protobuf.
    """

    model: onnx.ModelProto
    value_of: dict[Node, str]
    weights: Mapping[str, Array]


def export_whole(model: CapturedModel, boundary_nodes: Sequence[Node]) -> WholeOnnx:
    """Exports the model with `boundary_nodes` as outputs. Changes what `model.program` returns.

    Raises `CaptureError` naming the operation that has no ONNX form.
    """
    program = model.program
    inputs = [
        node
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    extra = [node for node in dict.fromkeys(boundary_nodes) if node not in inputs]
    _replace_outputs(program, extra)
    try:
        with quiet_torch(), torch.no_grad(), one_step_shapes(for_onnx=True):
            exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
            assert exported is not None
            optimize_ir(exported.model, should_fold=_may_fold)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), repr(cause))
        raise without_onnx_form(reason, model.layers) from error
    weights = _without_weights(exported.model)
    proto = onnx_ir.to_proto(exported.model)
    values = dict(zip(extra, (value.name for value in proto.graph.output), strict=True))
    values |= dict(zip(inputs, (value.name for value in proto.graph.input), strict=True))
    return WholeOnnx(model=proto, value_of=values, weights=weights)


def _replace_outputs(program: ExportedProgram, outputs: Sequence[Node]) -> None:
    """Makes the program return `outputs` as a flat tuple, whatever its model returned."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    output.args = (tuple(outputs),)
    program.graph_signature.output_specs[:] = [
        OutputSpec(kind=OutputKind.USER_OUTPUT, arg=TensorArgument(name=node.name), target=None)
        for node in outputs
    ]
    flat = torch.utils._pytree.tree_structure(tuple(outputs))
    codegen = program.graph._codegen
    if isinstance(codegen, torch.fx.graph._PyTreeCodeGen):
        codegen.pytree_info = codegen.pytree_info._replace(out_spec=flat)
    for entry in program.module_call_graph:
        if entry.fqn == "" and entry.signature is not None:
            entry.signature.out_spec = flat
            entry.signature.outputs = []  # torch cannot follow these names when it decomposes
    program.graph_module.recompile()


def _may_fold(node: onnx_ir.Node) -> bool | None:
    """Not a transposed weight: who stores it once may store it in either form (`weights.py`)."""
    value = node.inputs[0].const_value if node.inputs and node.inputs[0] is not None else None
    large = value is not None and value.nbytes >= MIN_WEIGHT_BYTES
    return False if node.op_type == "Transpose" and large else None


def _without_weights(model: onnx_ir.Model) -> dict[str, Array]:
    """Takes the large initializers out of the model, which keeps their names and shapes."""
    taken: dict[str, Array] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < MIN_WEIGHT_BYTES:
            continue
        taken[name] = tensor.numpy()
        value.const_value = onnx_ir.ExternalTensor(
            "nowhere",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=onnx_ir.Shape(taken[name].shape),
            name=name,
        )
    return taken
