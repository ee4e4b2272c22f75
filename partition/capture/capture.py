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
from torch.fx import Node

from ..bundle.graph import Cut, Layer, ModelGraph
from ..errors import CaptureError
from ..quiet import quiet_torch
from .batch_shape import batch_multiple, fake_value, shape_of_one, spec_of
from .borrowed import borrowed, is_exported
from .canonical import canonicalise, parameter_values
from .export_errors import explained
from .free_length import free_length
from .graph_check import check_operations
from .inputs_outputs import drop_constant_inputs, named_outputs_of, user_inputs
from .layers import (
    LayerNodes,
    group_layers,
    layer_flops,
    layer_parameters,
    node_flops,
    op_name,
    parameter_bytes,
)
from .recurrent import one_step_shapes

MAX_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedModel:
    """A canonical graph with everything that the cutters need to know about it.

    `layers[i]` are the nodes of `graph.layers[i]`; `cut_nodes[j]` are the nodes whose values cross
    `graph.cuts[j]`, in the order of its tensors. `outputs` maps the user's names of the outputs
    to nodes (two names may share one).
    """

    program: ExportedProgram
    graph: ModelGraph
    layers: tuple[LayerNodes, ...]
    cut_nodes: tuple[tuple[Node, ...], ...]
    outputs: Mapping[str, Node]

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
    one_sample: bool = False,
) -> CapturedModel:
    """Captures `module` on example inputs whose tensors all have the batch as dimension 0.

    The example's batch size must be at least 2 (an extent of 1 would be taken for a constant). With
    `one_sample` the example is a single one, and all sizes stay as they are in it.
    `name_prefix` is cut off the layers' names. Raises `CaptureError`, saying which operation or
    size, for a model that cannot be exported with a free batch size.
    """
    with borrowed(module):
        exported = _export(module, args, dict(kwargs or {}), name_prefix, free=not one_sample)
    drop_constant_inputs(exported)
    check_operations(exported, name_prefix)
    program = canonicalise(exported)
    inputs = user_inputs(program, one_sample=one_sample)
    outputs = named_outputs_of(program, one_sample=one_sample)
    is_data = _data_nodes(program, inputs)
    for name, node in outputs.items():
        if node not in is_data:
            raise CaptureError(
                f"the output {name!r} does not depend on the model's input",
                "return it beside the model instead",
            )
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and n in is_data]
    if not nodes:
        raise CaptureError(
            "the model computes nothing: its outputs are its inputs", "there is nothing to split"
        )
    layers = group_layers(nodes, name_prefix)
    cuts, cut_nodes = _find_cuts(
        layers, inputs, list(outputs.values()), is_data, one_sample=one_sample
    )
    return CapturedModel(
        program=program,
        graph=_model_graph(program, layers, cuts, inputs, list(outputs.values())),
        layers=tuple(layers),
        cut_nodes=cut_nodes,
        outputs=outputs,
    )


def _export(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    prefix: str,
    *,
    free: bool,
) -> ExportedProgram:
    exported_before = any(map(is_exported, module.modules()))
    # An exported program brings its own bounds of the batch size, which ours must not exceed.
    batch = Dim.DYNAMIC if exported_before else Dim("batch", min=1, max=MAX_BATCH)

    def dynamic(leaf: Any) -> Any:
        return {0: batch} if free and isinstance(leaf, torch.Tensor) else None

    _name_keywords(module, kwargs)

    def export() -> ExportedProgram:
        by_name = inspect.signature(module.forward).bind(*shapes[0], **shapes[1]).arguments
        with quiet_torch(), torch.no_grad(), one_step_shapes(), free_length():
            exported = torch.export.export(
                module, args, kwargs, dynamic_shapes=by_name, strict=False
            )
            program: ExportedProgram = exported.run_decompositions({})
            return program

    shapes = torch.utils._pytree.tree_map(dynamic, (args, kwargs))
    try:
        return export()
    except Exception as error:

        def call(samples: int | None) -> object:
            def some(leaf: Any) -> Any:
                return leaf[:samples] if isinstance(leaf, torch.Tensor) else leaf

            given, named = torch.utils._pytree.tree_map(some, (args, kwargs))
            return module(*given, **named)

        raise explained(error, module, call, export, prefix) from error


def _name_keywords(module: torch.nn.Module, kwargs: Mapping[str, Any]) -> None:
    """Gives a forward with `**kwargs` the names of these: torch knows inputs by its parameters.

    Changes the module, which is on loan.
    """
    signature, forward = inspect.signature(module.forward), module.forward
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return

    def named(*args: Any, **options: Any) -> Any:
        return forward(*args, **options)

    own = [p for p in signature.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    known = {parameter.name for parameter in own}
    keyword = inspect.Parameter.KEYWORD_ONLY
    own += [inspect.Parameter(name, keyword) for name in kwargs if name not in known]
    named.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    module.forward = named


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
    layers: list[LayerNodes],
    inputs: list[Node],
    outputs: list[Node],
    is_data: frozenset[Node],
    *,
    one_sample: bool,
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
        specs = [_crossing_spec(node, one_sample) for node in nodes]
        carried = tuple(spec for spec in specs if spec is not None)
        if len(carried) == len(specs):
            cuts.append(Cut(after=after, tensors=carried))
            crossing.append(nodes)
    return tuple(cuts), tuple(crossing)


def _crossing_spec(node: Node, one_sample: bool) -> TensorSpec | None:
    value = fake_value(node)
    if not isinstance(value, torch.Tensor):
        return None
    return spec_of(node.name, value, one_sample=one_sample)


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
        spec = spec_of(layer.name, first, one_sample=cuts[0].tensors[0].one_sample)
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
