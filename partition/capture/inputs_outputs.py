"""The inputs and outputs of an exported graph, by the names that the user gave them."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Node

from ..errors import CaptureError
from .batch_shape import TORCH_DTYPES, batch_multiple, fake_value, spec_of


def drop_constant_inputs(program: ExportedProgram) -> None:
    """Takes what is no tensor out of the inputs: an export makes constants of it.

    What is left is passed flat, whatever the model's own arguments are.
    """
    specs = program.graph_signature.input_specs
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    constant = [spec for spec in specs if isinstance(spec.arg, ConstantArgument)]
    for spec in constant:
        specs.remove(spec)
        if spec.arg.name in placeholders:
            program.graph.erase_node(placeholders[spec.arg.name])
    if constant:
        _take_flat(program, [spec.arg for spec in specs if spec.kind is InputKind.USER_INPUT])


def _take_flat(program: ExportedProgram, inputs: list[Any]) -> None:
    """Makes the program take `inputs` one after the other."""
    names = [argument.name for argument in inputs]
    flat = torch.utils._pytree.tree_structure((tuple(names), {}))
    codegen = program.graph._codegen
    if isinstance(codegen, torch.fx.graph._PyTreeCodeGen):
        codegen.pytree_info = codegen.pytree_info._replace(in_spec=flat, orig_args=names)
    for entry in program.module_call_graph:
        if entry.fqn == "" and entry.signature is not None:
            entry.signature.in_spec, entry.signature.inputs = flat, inputs
            entry.signature.forward_arg_names = names
    if program.example_inputs is not None:
        leaves = torch.utils._pytree.tree_leaves(program.example_inputs)
        program.example_inputs = (tuple(x for x in leaves if isinstance(x, torch.Tensor)), {})
    program._guards_code = []  # about the model's own arguments
    program.graph_module.recompile()


def user_inputs(program: ExportedProgram, *, one_sample: bool = False) -> list[Node]:
    """The placeholders of the user's tensors, each with the batch as dimension 0.

    Of a model that takes `one_sample` at a time they may have any dimensions.
    """
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        node = placeholders.get(spec.arg.name)
        value = None if node is None else fake_value(node)
        if node is None or not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"the input {spec.arg.name!r} is no tensor, and no number that became a constant",
                "give tensors, numbers, bools, strings or None, in lists, tuples or dicts",
            )
        if value.ndim == 0 or (not one_sample and batch_multiple(value.shape[0]) != 1):
            raise CaptureError(
                f"the input {node.name!r} of shape {list(value.shape)} has no free batch dimension",
                "give every input the batch as dimension 0, and no size fixed to one batch size",
            )
        inputs.append(node)
    return inputs


def named_outputs_of(program: ExportedProgram, *, one_sample: bool = False) -> dict[str, Node]:
    """The nodes that the program returns, by names made of keys and positions."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    tree = program.call_spec.out_spec
    assert tree is not None
    for spec in program.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise CaptureError(
                f"the model changes its input or buffer {spec.target!r} in place",
                "clone it first; a segment keeps no state between frames",
            )
    leaves = list(output.args[0])
    paths, _ = torch.utils._pytree.tree_flatten_with_path(
        torch.utils._pytree.tree_unflatten(leaves, tree)
    )
    named: dict[str, Node] = {}
    for path, leaf in paths:
        if leaf is None:
            continue
        name = ".".join(str(_key_text(key)) for key in path) or "output"
        named[name] = _checked(name, leaf, one_sample)
    if not named:
        raise CaptureError("the model returns nothing", "return its tensors")
    return named


def _checked(name: str, leaf: Any, one_sample: bool) -> Node:
    """`leaf` if it can be the output `name`."""
    value = fake_value(leaf) if isinstance(leaf, Node) else leaf
    if not isinstance(value, torch.Tensor):
        raise CaptureError(
            f"the output {name!r} is a number or a size, no tensor",
            "return tensors only; who sends a batch knows its size",
        )
    assert isinstance(leaf, Node)
    if spec_of(name, value, one_sample=one_sample) is not None:
        return leaf
    dtype = str(value.dtype).removeprefix("torch.")
    shape = ["batch" if batch_multiple(extent) else str(extent) for extent in value.shape]
    shown = f"{dtype} [{', '.join(shape)}]"
    if value.dtype not in TORCH_DTYPES:
        raise CaptureError(
            f"the output {name!r} is {shown}, and {dtype} cannot be sent",
            "return torch.view_as_real of it"
            if value.dtype.is_complex
            else "convert the model and its example inputs with .float()",
        )
    batches = shape.count("batch")
    raise CaptureError(
        f"the output {name!r} is {shown}: "
        + ("it has no batch dimension" if not batches else "the batch is not in one dimension"),
        "return a part for each sample, stacked along one dimension: no sums or means over samples",
    )


def _key_text(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key
