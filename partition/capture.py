"""From a torch model to a graph that can be cut: export, simplify, group into layers, find cuts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from splitpoint.codec import TensorSpec
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from .batch_shape import batch_multiple, fake_value, shape_of_one, spec_of
from .borrowed import borrowed, is_exported
from .canonical import canonicalise, parameter_values
from .errors import CaptureError
from .graph import Cut, Layer, ModelGraph
from .layers import (
    LayerNodes,
    group_layers,
    layer_flops,
    layer_parameters,
    node_flops,
    op_name,
    parameter_bytes,
)
from .quiet import quiet_torch
from .recurrent import one_step_shapes

MAX_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedModel:
    """A canonical graph with everything that the cutters need to know about it.

    `layers[i]` are the nodes of `graph.layers[i]`; `cut_nodes[j]` are the nodes whose values cross
    `graph.cuts[j]`, in the order of its tensors. `outputs` maps the user's names of the outputs
    to nodes (two names may share one). `is_data` are the nodes that depend on the inputs' values.
    """

    program: ExportedProgram
    graph: ModelGraph
    layers: tuple[LayerNodes, ...]
    cut_nodes: tuple[tuple[Node, ...], ...]
    outputs: Mapping[str, Node]
    is_data: frozenset[Node]

    @property
    def output_names(self) -> dict[str, str]:
        """The user's name of each output -> its tensor of the last cut."""
        return {name: node.name for name, node in self.outputs.items()}


def capture(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    name_prefix: str = "",
) -> CapturedModel:
    """Captures `module` on example inputs whose tensors all have the batch as dimension 0.

    The example's batch size must be at least 2 (an extent of 1 would be taken for a constant).
    `name_prefix` is cut off the layers' names. Raises `CaptureError`, saying which operation or
    size, for a model that cannot be exported with a free batch size.
    """
    with borrowed(module):
        exported = _export(module, args, dict(kwargs or {}))
    program = canonicalise(exported)
    inputs = _user_inputs(program)
    outputs = _named_outputs(program)
    is_data = _data_nodes(program, inputs)
    for name, node in outputs.items():
        if node not in is_data:
            raise CaptureError(
                f"the output {name!r} does not depend on the model's input",
                "return it beside the model instead",
            )
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and n in is_data]
    layers = group_layers(nodes, name_prefix)
    cuts, cut_nodes = _find_cuts(layers, inputs, list(outputs.values()), is_data)
    return CapturedModel(
        program=program,
        graph=_model_graph(program, layers, cuts, inputs, list(outputs.values())),
        layers=tuple(layers),
        cut_nodes=cut_nodes,
        outputs=outputs,
        is_data=is_data,
    )


def _export(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    exported_before = any(map(is_exported, module.modules()))
    # An exported program brings its own bounds of the batch size, which ours must not exceed.
    batch = Dim.DYNAMIC if exported_before else Dim("batch", min=1, max=MAX_BATCH)

    def dynamic(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, torch.Tensor) else None

    shapes = torch.utils._pytree.tree_map(dynamic, (args, kwargs))
    try:
        by_name = inspect.signature(module.forward).bind(*shapes[0], **shapes[1]).arguments
        with quiet_torch(), torch.no_grad(), one_step_shapes():
            exported = torch.export.export(
                module, args, kwargs, dynamic_shapes=by_name, strict=False
            )
            program: ExportedProgram = exported.run_decompositions({})
            return program
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise CaptureError(
            f"the model's graph cannot be captured ({type(error).__name__}: {reason[:300]})",
            "torch.export must accept the model with a free batch size: remove control flow that "
            "depends on values, and sizes fixed to one batch size",
        ) from error


def _user_inputs(program: ExportedProgram) -> list[Node]:
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        node = placeholders.get(spec.arg.name)
        value = None if node is None else fake_value(node)
        if not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"the input {spec.arg.name!r} is no tensor",
                "bind it with functools.partial or a wrapper module",
            )
        assert node is not None
        if value.ndim == 0 or batch_multiple(value.shape[0]) != 1:
            raise CaptureError(
                f"the input {node.name!r} of shape {list(value.shape)} has no free batch dimension",
                "give every input the batch as dimension 0, and no size fixed to one batch size",
            )
        inputs.append(node)
    return inputs


def _named_outputs(program: ExportedProgram) -> dict[str, Node]:
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
        value = fake_value(leaf) if isinstance(leaf, Node) else leaf
        if not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"the output {name!r} is a number or a size, no tensor",
                "return tensors only; who sends a batch knows its size",
            )
        if not isinstance(leaf, Node) or spec_of(name, value) is None:
            raise CaptureError(
                f"the output {name!r} is no tensor with a batch dimension",
                "return tensors of supported dtypes with one dimension that is the batch",
            )
        named[name] = leaf
    return named


def _key_text(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def _data_nodes(program: ExportedProgram, inputs: list[Node]) -> frozenset[Node]:
    """Nodes whose values depend on the inputs' values, not only on their shapes."""
    data = set(inputs)
    for node in program.graph.nodes:
        if node.op != "call_function" or isinstance(fake_value(node), (int, torch.SymInt)):
            if isinstance(fake_value(node), torch.SymInt):
                batch_multiple(fake_value(node))  # refuses sizes that no segment can recompute
            continue
        value = fake_value(node)
        leaves = value if isinstance(value, (tuple, list)) else (value,)
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                shape_of_one(leaf)  # refuses shapes that depend on values
        if any(argument in data for argument in node.all_input_nodes):
            data.add(node)
    return frozenset(data)


def _find_cuts(
    layers: list[LayerNodes], inputs: list[Node], outputs: list[Node], is_data: frozenset[Node]
) -> tuple[tuple[Cut, ...], tuple[tuple[Node, ...], ...]]:
    """Every cut between two layers in execution order, and the nodes that cross each.

    A tensor crosses if it exists before the cut and is read after it (by a layer, or because it is
    an output); it is carried once however many read it.
    """
    forever = len(layers) + 1
    position = {node: index for index, layer in enumerate(layers) for node in layer.nodes}
    last_use: dict[Node, int] = {}
    for node in is_data:
        uses = [position[user] for user in node.users if user in position]
        last_use[node] = forever if node in outputs else max(uses, default=-1)
    alive = [node for node in inputs if last_use[node] >= 0]
    cuts: list[Cut] = []
    crossing: list[tuple[Node, ...]] = []
    for after in range(-1, len(layers)):
        if after >= 0:
            alive += layers[after].nodes
            alive = [node for node in alive if last_use[node] > after]
        final = after == len(layers) - 1
        nodes = tuple(dict.fromkeys(outputs)) if final else tuple(inputs if after < 0 else alive)
        specs = [_crossing_spec(node) for node in nodes]
        carried = tuple(spec for spec in specs if spec is not None)
        if len(carried) == len(specs):
            cuts.append(Cut(after=after, tensors=carried))
            crossing.append(nodes)
    return tuple(cuts), tuple(crossing)


def _crossing_spec(node: Node) -> TensorSpec | None:
    value = fake_value(node)
    return spec_of(node.name, value) if isinstance(value, torch.Tensor) else None


def _model_graph(
    program: ExportedProgram,
    layers: list[LayerNodes],
    cuts: tuple[Cut, ...],
    inputs: list[Node],
    outputs: list[Node],
) -> ModelGraph:
    parameters = parameter_values(program)
    position = {node: index for index, layer in enumerate(layers) for node in layer.nodes}
    position |= dict.fromkeys(inputs, -1)
    crossing_bytes = {cut.after: cut.nbytes for cut in cuts}
    records = []
    for index, layer in enumerate(layers):
        value = fake_value(layer.output)
        first = value[0] if isinstance(value, (tuple, list)) else value
        spec = spec_of(layer.name, first)
        shape = spec.shape_without_batch if spec else shape_of_one(first)
        sources = {
            position[argument]
            for node in layer.nodes
            for argument in node.all_input_nodes
            if argument in position and position[argument] != index
        }
        records.append(
            Layer(
                name=layer.name,
                op=layer.op,
                output_shape=shape,
                dtype=str(first.dtype).removeprefix("torch."),
                output_bytes=_leaving_bytes(layer, outputs),
                flops=layer_flops(layer),
                params=layer_parameters(layer, parameters),
                param_bytes=parameter_bytes(layer, parameters),
                inputs=tuple(sorted(sources)),
                crossing_bytes=crossing_bytes.get(index),
            )
        )
    unsupported = {
        op_name(node) for layer in layers for node in layer.nodes if node_flops(node) is None
    }
    return ModelGraph(layers=tuple(records), cuts=cuts, unsupported_ops=tuple(sorted(unsupported)))


def _leaving_bytes(layer: LayerNodes, outputs: list[Node]) -> int:
    """Raw bytes, for one sample, of the tensors that others read or that the model returns."""
    own = set(layer.nodes)
    values = [
        fake_value(node)
        for node in layer.nodes
        if node in outputs or not own.issuperset(node.users)
    ]
    return sum(
        value.element_size() * math.prod(shape_of_one(value))
        for value in values
        if isinstance(value, torch.Tensor)
    )
