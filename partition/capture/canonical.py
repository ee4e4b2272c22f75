"""Puts an exported graph into the form that can be cut.

What enters is a functional ATen graph as torch.export makes it. What leaves computes the same and
has neither run-time assertions nor identity operations, no copies, one output per operation where
one is used, and every value that does not depend on the inputs folded into a constant, so that
Swin's attention masks are weights and not ninety operations a frame.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from .batch_shape import fake_value

aten = torch.ops.aten

# A fold may not blow a small constant up into a large one: such an expansion stays an operation.
MAX_FOLD_GROWTH_BYTES = 1 << 20

_IDENTITIES = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
    aten.dropout.default,
}
_METADATA_ONLY = {  # read dtype and device of their first argument, never its values
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
}


def canonicalise(program: ExportedProgram) -> ExportedProgram:
    """The same program with its graph simplified in place."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            _simplify(graph, node)
    _fold_constants(program)
    graph.eliminate_dead_code()
    _drop_unused_inputs(program)
    graph.lint()
    program.graph_module.recompile()
    return program


def parameter_values(program: ExportedProgram) -> dict[Node, tuple[str, torch.Tensor]]:
    """Placeholder of each parameter, buffer and constant -> (its name in the model, its value)."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    values: dict[Node, tuple[str, torch.Tensor]] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder" or specs[node.name].kind is InputKind.USER_INPUT:
            continue
        target = specs[node.name].target
        value = program.state_dict.get(target, program.constants.get(target))
        if isinstance(value, torch.Tensor):
            values[node] = (target, value.detach())
    return values


# Operations that a batch norm folds into -> the dimension of their weight that is its channels.
_OUTPUT_DIMENSION: dict[Any, int] = {
    **dict.fromkeys(
        (
            aten.conv1d.default,
            aten.conv2d.default,
            aten.conv3d.default,
            aten.conv1d.padding,
            aten.conv2d.padding,
            aten.conv3d.padding,
            aten.linear.default,
        ),
        0,
    ),
    **dict.fromkeys(
        (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input), 1
    ),
}
_GROUPS = 6  # which argument of a transposed convolution they are


def fold_batch_norms(program: ExportedProgram, crossing: frozenset[Node]) -> None:
    """Folds each batch norm into the weighted operation before it, unless a cut is between them.

    With mean m, variance v, scale g and shift b of a channel, g·(w·x + c - m)/sqrt(v + eps) + b is
    a convolution with the weight w·s and the bias (c - m)·s + b, where s = g/sqrt(v + eps). The
    batch norm's node becomes that convolution, so whatever refers to it stays valid. What is not
    folded here, the ONNX exporter may fold: the bundle then has the weights in both forms.
    """
    values = {node: value for node, (_, value) in parameter_values(program).items()}
    for node in list(program.graph.nodes):
        if node.target is not aten.batch_norm.default:
            continue
        convolution, scale, shift, mean, variance = node.args[:5]
        if (
            convolution.target not in _OUTPUT_DIMENSION
            or len(convolution.users) != 1
            or convolution in crossing
            or mean is None
            # Channels are dimension 1, and a linear layer's outputs the last one.
            or (convolution.target is aten.linear.default and fake_value(convolution).ndim != 2)
        ):
            continue
        x, weight, bias, *options = (*convolution.args, None)[: max(3, len(convolution.args))]
        if any(n is not None and n not in values for n in (weight, bias, *node.args[1:5])):
            continue  # computed from data: nothing to fold
        w = values[weight].double()
        s = 1 / torch.sqrt(values[variance].double() + float(node.args[7]))
        s = s if scale is None else s * values[scale].double()
        c = -values[mean].double() if bias is None else (values[bias] - values[mean]).double()
        new_bias = c * s if shift is None else c * s + values[shift].double()
        new_weight = _scaled(convolution, w, s)
        name, dtype = f"folded.{node.name}", values[weight].dtype
        arguments = (
            x,
            _add_constant(program, f"{name}.weight", new_weight.to(dtype), fake_value(weight)),
            _add_constant(program, f"{name}.bias", new_bias.to(dtype), fake_value(mean)),
            *options,
        )
        node.target, node.args, node.kwargs = convolution.target, arguments, convolution.kwargs
        # The work is the convolution's: a profile is to find it under that name.
        node.meta["nn_module_stack"] = convolution.meta.get("nn_module_stack", {})
        program.graph.erase_node(convolution)
    _drop_unused_inputs(program)
    program.graph.lint()
    program.graph_module.recompile()


def _scaled(operation: Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The weight whose output channels are multiplied by `scale`."""
    if not _OUTPUT_DIMENSION[operation.target]:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    groups: Any = operation.args[_GROUPS] if len(operation.args) > _GROUPS else 1
    parts = weight.reshape(groups, -1, *weight.shape[1:])  # inputs of a group are neighbours
    return (parts * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _simplify(graph: torch.fx.Graph, node: Node) -> None:
    value = fake_value(node)
    if value is None:  # run-time assertions and the like: nobody uses what they return
        if not node.users:
            graph.erase_node(node)
    elif node.target in _IDENTITIES:
        source = node.args[0]
        assert isinstance(source, Node)
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    elif node.target in (aten.view.default, aten._unsafe_view.default):
        # Without the copies before it, the argument may be strided in a way that a view refuses.
        node.target = aten.reshape.default
    elif node.target is aten._native_batch_norm_legit_no_training.default:
        _merge_batch_norm(graph, node)


def _merge_batch_norm(graph: torch.fx.Graph, node: Node) -> None:
    """Three outputs, of which one is used, become the operation with one output."""
    users = list(node.users)
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in users):
        return
    x, weight, bias, mean, variance, momentum, epsilon = node.args
    with graph.inserting_before(node):
        merged = graph.call_function(
            aten.batch_norm.default,
            (x, weight, bias, mean, variance, False, momentum, epsilon, True),
        )
    merged.meta = {**node.meta, "val": fake_value(node)[0]}
    for user in users:
        user.replace_all_uses_with(merged)
        graph.erase_node(user)
    graph.erase_node(node)


def _fold_constants(program: ExportedProgram) -> None:
    known: dict[Node, Any] = {node: value for node, (_, value) in parameter_values(program).items()}
    folded: list[Node] = []
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "call_function" and _is_constant(node, known):
                known[node] = _evaluate(node, known)
                folded.append(node)
    for node in folded:
        value = known[node]
        used = any(user not in known for user in node.users)
        if used and isinstance(value, torch.Tensor):
            placeholder = _add_constant(program, f"folded.{node.name}", value, fake_value(node))
            node.replace_all_uses_with(placeholder)


def _add_constant(
    program: ExportedProgram, name: str, value: torch.Tensor, fake: torch.Tensor
) -> Node:
    """A new placeholder, before all others, that stands for `value`."""
    graph = program.graph
    with graph.inserting_before(next(iter(graph.nodes))):
        placeholder: Node = graph.placeholder(f"c_{name.replace('.', '_')}")
    placeholder.meta = {"val": fake}
    program.graph_signature.input_specs.insert(
        0,
        InputSpec(
            kind=InputKind.CONSTANT_TENSOR,
            arg=TensorArgument(name=placeholder.name),
            target=name,
            persistent=None,
        ),
    )
    program.constants[name] = value.detach().clone().contiguous()
    return placeholder


def _is_constant(node: Node, known: dict[Node, Any]) -> bool:
    inputs = node.all_input_nodes
    if node.target in _METADATA_ONLY:
        inputs = [argument for argument in inputs if argument is not node.args[0]]
    if any(argument not in known for argument in inputs):
        return False
    value = fake_value(node)
    leaves = value if isinstance(value, (tuple, list)) else (value,)
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return False
    if any(not isinstance(extent, int) for leaf in leaves for extent in leaf.shape):
        return False
    grown: int = sum(leaf.numel() * leaf.element_size() for leaf in leaves) - sum(
        known[argument].nbytes for argument in inputs if isinstance(known[argument], torch.Tensor)
    )
    return grown <= MAX_FOLD_GROWTH_BYTES


def _evaluate(node: Node, known: dict[Node, Any]) -> Any:
    def value_of(argument: Node) -> Any:
        if argument in known:
            return known[argument]
        fake = fake_value(argument)  # a metadata-only argument
        return torch.empty(0, dtype=fake.dtype)

    arguments = torch.fx.map_arg(node.args, value_of)
    options = torch.fx.map_arg(node.kwargs, value_of)
    assert callable(node.target)
    return node.target(*arguments, **options)


def _drop_unused_inputs(program: ExportedProgram) -> None:
    """Parameters that only folded operations used (or nobody) need not travel."""
    specs = program.graph_signature.input_specs
    for node in list(program.graph.nodes):
        if node.op == "placeholder" and not node.users:
            spec = next(spec for spec in specs if spec.arg.name == node.name)
            if spec.kind is not InputKind.USER_INPUT:
                program.graph.erase_node(node)
                specs.remove(spec)
