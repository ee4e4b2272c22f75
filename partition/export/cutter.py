"""The edge's form of the segments: one ONNX export of the whole model, cut at the boundaries.

One export takes as long as the exports of all segments together take each, so it is done once with
every boundary tensor as an output, and the ONNX graph is cut at those values. Sizes need care:
the exporter reads the batch size wherever it likes, often from the model's input. Every `Shape` of
an activation is therefore recomputed from the first tensor that enters the segment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper
from splitpoint.codec import TensorSpec
from torch.fx import Node

from ..errors import CaptureError
from .export import WholeOnnx

_MULTIPLE = re.compile(r"(?:(\d+)\*)?[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutSegment:
    """A segment, whose large initializers are external tensors that lie nowhere yet.

    It wants the weights called `turned` transposed: nothing in it reads them as they are.
    """

    model: onnx.ModelProto
    turned: frozenset[str]


class OnnxCutter:
    """Cuts segments out of one exported model.

    `layer_of` names the layer that each ONNX value belongs to. Inside a segment, values and nodes
    are called LAYER/NUMBER, so that onnxruntime's profiler speaks of the user's layers.
    """

    def __init__(self, whole: WholeOnnx, layer_of: Mapping[str, str]) -> None:
        self._whole, self._layer_of = whole, layer_of
        graph = whole.model.graph
        self._producer = {name: node for node in graph.node for name in node.output if name}
        self._order = {id(node): index for index, node in enumerate(graph.node)}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._types = {
            value.name: value for value in (*graph.value_info, *graph.input, *graph.output)
        }
        for node in graph.node:
            if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                raise CaptureError(
                    f"the operation {node.op_type} with a nested graph cannot be cut",
                    "remove control flow from the model",
                )

    def segment(
        self,
        entering: Sequence[tuple[Node, TensorSpec]],
        leaving: Sequence[tuple[Node, TensorSpec]],
    ) -> CutSegment:
        """The model that computes `leaving` from `entering`; its values bear the specs' names."""
        here = {self._whole.value_of[node]: spec for node, spec in entering}
        wanted = {
            self._whole.value_of[node]: spec
            for node, spec in leaving
            if self._whole.value_of[node] not in here
        }
        nodes, initializers, shapes = self._collect(list(wanted), set(here))
        turned = self._turned(nodes)
        nodes = [node for node in nodes if node.output[0] not in turned]
        used = {name for node in nodes for name in node.input}
        if shapes and not used & set(here):
            used.add(next(iter(here)))
        rename = {name: spec.name for name, spec in (here | wanted).items()} | turned
        values = [name for node in nodes for name in node.output if name]
        for number, name in enumerate(values):
            rename.setdefault(name, f"{self._layer_of.get(name, '')}/{number}")
        prelude = self._recomputed_shapes(shapes, here, used) if shapes else ([], [])
        copies = [_copy(node, rename) for node in (*prelude[0], *nodes)]
        tensors = [_copy_tensor(self._initializers[name], turned) for name in initializers]
        for tensor in tensors:
            if tensor.name in rename:
                raise CaptureError(f"the weight {tensor.name!r} bears the name of a tensor")
        graph = helper.make_graph(
            copies,
            "segment",
            [_value_info(spec) for name, spec in here.items() if name in used],
            [_value_info(spec) for spec in wanted.values()],
            [*tensors, *prelude[1]],
        )
        source = self._whole.model
        model = helper.make_model(graph, producer_name="splitpoint")
        model.ir_version = source.ir_version
        del model.opset_import[:]
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        return CutSegment(model=model, turned=frozenset(turned.values()))

    def _turned(self, nodes: Sequence[onnx.NodeProto]) -> dict[str, str]:
        """Transposed weight -> weight, of those that are read in no other form by `nodes`."""
        found: dict[str, str] = {}
        others: set[str] = set()
        for node in nodes:
            weight = self._whole.weights.get(node.input[0]) if node.input else None
            if node.op_type == "Transpose" and weight is not None and weight.ndim == 2:
                found[node.output[0]] = node.input[0]  # there is only one other order
            else:
                others |= set(node.input)
        return {name: source for name, source in found.items() if source not in others}

    def _collect(
        self, wanted: list[str], here: set[str]
    ) -> tuple[list[onnx.NodeProto], list[str], list[onnx.NodeProto]]:
        """Nodes in order, initializers, and the `Shape` nodes to be recomputed."""
        nodes: dict[int, onnx.NodeProto] = {}
        initializers: dict[str, None] = {}
        shapes: dict[int, onnx.NodeProto] = {}
        seen: set[str] = set()
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name in seen or name in here or not name:
                continue
            seen.add(name)
            if name in self._initializers:
                initializers[name] = None
                continue
            node = self._producer.get(name)
            if node is None:
                raise CaptureError(f"internal error: the ONNX value {name!r} crosses a cut")
            if node.op_type == "Shape" and self._extents(node.input[0]):
                shapes[id(node)] = node
                continue
            nodes[id(node)] = node
            stack += node.input
        ordered = sorted(nodes.values(), key=lambda node: self._order[id(node)])
        return ordered, list(initializers), list(shapes.values())

    def _recomputed_shapes(
        self, shapes: list[onnx.NodeProto], here: dict[str, TensorSpec], used: set[str]
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes that give each value of `shapes` as constants + factors * batch."""
        source = next(name for name in here if name in used)
        spec = here[source]
        nodes = [
            helper.make_node(
                "Shape", [source], ["batch__extent"], start=spec.batch_dim, end=spec.batch_dim + 1
            ),
            helper.make_node("Div", ["batch__extent", "batch__factor"], ["batch__size"]),
        ]
        constants = {"batch__factor": [spec.shape[spec.batch_dim]]}
        for shape in shapes:
            output = shape.output[0]
            attributes = {a.name: a.i for a in shape.attribute}
            extents = self._extents(shape.input[0])
            extents = extents[attributes.get("start", 0) : attributes.get("end", len(extents))]
            constants[f"{output}__factors"] = [factor or 0 for _, factor in extents]
            constants[f"{output}__fixed"] = [fixed or 0 for fixed, _ in extents]
            nodes += [
                helper.make_node(
                    "Mul", ["batch__size", f"{output}__factors"], [f"{output}__scaled"]
                ),
                helper.make_node("Add", [f"{output}__scaled", f"{output}__fixed"], [output]),
            ]
        return nodes, [
            numpy_helper.from_array(np.array(values, np.int64), name)
            for name, values in constants.items()
        ]

    def _extents(self, name: str) -> list[tuple[int | None, int | None]]:
        """Each dimension of an activation as (constant, None) or (None, factor of the batch).

        Empty where the exporter recorded no such shape (it invents values within one operation):
        then the `Shape` stays as it is, which is right as long as that operation is not cut.
        """
        value = self._types.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return []
        extents: list[tuple[int | None, int | None]] = []
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value"):
                extents.append((dim.dim_value, None))
                continue
            match = _MULTIPLE.fullmatch(dim.dim_param)
            if match is None:
                return []
            extents.append((None, int(match[1] or 1)))
        return extents


def _copy(node: onnx.NodeProto, rename: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [rename.get(name, name) for name in node.input]
    copy.output[:] = [rename.get(name, name) for name in node.output]
    # Fused nodes are called after one or the other; an output that nobody reads has no name.
    copy.name = next(name for name in copy.output if name)
    copy.doc_string = ""
    del copy.metadata_props[:]  # source paths of the machine that compiled
    return copy


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape: list[int | str] = list(spec.shape)
    factor = spec.shape[spec.batch_dim]
    if not spec.one_sample:
        shape[spec.batch_dim] = "batch" if factor == 1 else f"{factor}*batch"
    return helper.make_tensor_value_info(
        spec.name, helper.np_dtype_to_tensor_dtype(spec.numpy_dtype), shape
    )


def _copy_tensor(tensor: onnx.TensorProto, turned: Mapping[str, str]) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    if copy.name in turned.values():
        copy.dims[:] = tensor.dims[::-1]
    return copy
