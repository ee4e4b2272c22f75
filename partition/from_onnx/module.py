"""A torch module that computes an ONNX graph, with a part for every node."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from splitpoint.codec import Array
from torch import Tensor

from ..errors import ModelError
from ..onnx_operators.node import (
    GraphBatch,
    Node,
    Operator,
    as_tensor,
    is_python,
    is_small_integers,
)
from ..onnx_operators.numbers import NUMBERS
from ..onnx_operators.operators import CONSTANT, OPERATORS, check_operators, label_of
from .model_file import opset_of

# A fold may not blow a small constant up into a large one: such an expansion stays an operation.
_MOST_FOLDED_BYTES = 1 << 20


class Operation(torch.nn.Module):
    """One node."""

    def __init__(self, node: Node, operator: Operator) -> None:
        super().__init__()
        self.node, self.operator = node, operator

    def forward(self, *inputs: Any) -> Any:
        """What the node computes of its inputs, of which some may be Python numbers."""
        try:
            found = self._of_numbers(inputs)
            if found is NotImplemented:
                given = [self._taken(place, value) for place, value in enumerate(inputs)]
                found = self.operator.compute(self.node, *given)
        except ModelError:
            raise
        except Exception as error:
            if torch.compiler.is_exporting():  # which has its own words
                raise
            reason = " ".join(str(error).split())[:160]
            raise self.node.cannot(f"fails ({type(error).__name__}: {reason})") from error
        if (len(found) if isinstance(found, tuple) else 1) < self.node.wanted:
            raise self.node.cannot(f"also returns {self.node.outputs[self.node.wanted - 1]!r}")
        return found

    def _of_numbers(self, inputs: tuple[Any, ...]) -> Any:
        """The result where all inputs are numbers, and the node can be computed on such."""
        compute = NUMBERS.get(self.node.kind)
        if compute is None or not any(map(is_python, inputs)):
            return NotImplemented
        numbers = []
        for place, value in enumerate(inputs):
            constant = self.node.constants.get(place)
            if value is None or is_python(value):
                numbers.append(value)
            elif constant is not None and _is_list(constant):
                numbers.append(constant.tolist())
            else:
                return NotImplemented
        return compute(self.node, *numbers)

    def _taken(self, place: int, value: Any) -> Any:
        if place not in self.operator.sizes or value is None:
            return as_tensor(value)
        if is_python(value):
            return value if isinstance(value, list) else [value]
        constant = self.node.constants.get(place)
        if constant is None:
            raise self.node.cannot("takes a size of the values of a tensor")
        return constant.reshape(-1).tolist()


class OnnxModule(torch.nn.Module):
    """The graph of `model`, whose inputs have `fixed` samples.

    Takes its inputs by name (see `parameters_of`), or in the graph's order, and returns its outputs
    by the graph's names. Raises `ModelError`, naming the node, for what cannot be read.
    """

    def __init__(self, model: Any, fixed: int) -> None:
        super().__init__()
        check_operators(model.graph)
        self.nodes, self.weights = torch.nn.ModuleDict(), torch.nn.Module()
        self._free_node, self._free_weight = _FreeNames(self.nodes), _FreeNames(self.weights)
        self.batch = GraphBatch(fixed)
        self._steps: list[tuple[str, list[str], list[str]]] = []
        self._stored: dict[str, str] = {}  # the graph's name of a constant -> ours
        self._numbers: dict[str, Any] = {}
        self._outputs = [value.name for value in model.graph.output]
        if model.graph.sparse_initializer:
            name = model.graph.sparse_initializer[0].values.name
            raise ModelError(f"the weight {name!r} is sparse", "export the model with dense ones")
        constants = {t.name: _array(t, t.name) for t in model.graph.initializer}
        given = [value.name for value in model.graph.input if value.name not in constants]
        self.parameters_of = parameter_names(given)
        self.batch.learning = True
        with torch.no_grad():
            for node in model.graph.node:
                self._add(node, constants, opset_of(model))
        self.batch.learning = False
        for name in self._outputs:
            if name in constants:
                raise ModelError(
                    f"the output {name!r} does not depend on the graph's input",
                    "export the model without it",
                )

    def forward(self, *ordered: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """The outputs for a batch of inputs."""
        values: dict[str, Any] = dict(zip(self.parameters_of, ordered, strict=False))
        values |= {n: named[own] for n, own in self.parameters_of.items() if own in named}
        self.batch.now = next(iter(values.values())).shape[0]
        values |= self._numbers
        values |= {name: getattr(self.weights, own) for name, own in self._stored.items()}
        try:
            for part, given, made in self._steps:
                found = self.nodes[part](*(values[name] if name else None for name in given))
                results = found if isinstance(found, tuple) else (found,)
                values.update(zip(made, results, strict=False))
        finally:
            self.batch.now = self.batch.fixed  # symbols of an export are not to outlive it
        return {name: as_tensor(values[name]) for name in self._outputs}

    def first_of(self, kind: str) -> str:
        """The name of the first node of a kind; "" where there is none."""
        parts = (part for part in self.nodes.values() if isinstance(part, Operation))
        return next((part.node.name for part in parts if part.node.kind == kind), "")

    def learn_batch(self, once: Mapping[str, Tensor], thrice: Mapping[str, Tensor]) -> None:
        """Runs on the fixed batch and on three times that, to find what has to grow with it.

        Raises `ModelError`, naming the node, where the graph does not take the larger batch.
        """
        self.batch.learning = True
        try:
            with torch.no_grad():
                self(**once)
                self(**thrice)
        finally:
            self.batch.learning = False

    def _add(self, node: Any, constants: dict[str, Array], opset: int) -> None:
        """One more node, or, where all that it takes is constant, what it computes."""
        attributes = {a.name: _attribute(a, node) for a in node.attribute}
        if node.op_type == CONSTANT:
            constants[node.output[0]] = _constant(attributes, node)
            return
        own = {place: constants[n] for place, n in enumerate(node.input) if n in constants}
        made = Node(
            name=label_of(node),
            kind=node.op_type,
            opset=opset,
            attributes=attributes,
            constants=own,
            outputs=tuple(node.output),
            batch=self.batch,
        )
        part = Operation(made, OPERATORS[node.op_type])
        if len(own) == len([name for name in node.input if name]):
            found = part(*(_passed(constants[n]) if n else None for n in node.input))
            results = list(map(as_tensor, found if isinstance(found, tuple) else (found,)))
            taken = sum(array.nbytes for array in own.values())
            # Before they are copied: until then, what is expanded is as small as it was.
            if sum(value.nbytes for value in results) <= max(2 * taken, _MOST_FOLDED_BYTES):
                constants.update(zip(node.output, map(_as_array, results), strict=False))
                return
        for name in node.input:
            if name in constants and name not in self._stored and name not in self._numbers:
                self._store(name, constants[name])
        key = self._free_node(re.sub(r"\W+", "_", made.name).strip("_") or made.kind)
        self.nodes[key] = part
        self._steps.append((key, list(node.input), list(node.output)))

    def _store(self, name: str, array: Array) -> None:
        if is_small_integers(array):
            self._numbers[name] = array.tolist()
            return
        key = self._free_weight(re.sub(r"\W+", "_", name).strip("_") or "value")
        self.weights.register_buffer(key, torch.from_numpy(array))
        self._stored[name] = key


def parameter_names(given: Sequence[str]) -> dict[str, str]:
    """The graph's names of its inputs -> as Python writes names, each another."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in given:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain == "self":
            plain = f"input_{plain}"
        while plain in taken:
            plain += "_"
        taken.add(plain)
        found[name] = plain
    return found


class _FreeNames:
    """`add`, `add_2`, `add_3`: names that no attribute of a module has, for thousands of one."""

    def __init__(self, holder: torch.nn.Module) -> None:
        self._holder = holder
        self._next: dict[str, int] = {}  # the number to try first

    def __call__(self, wanted: str) -> str:
        name, number = wanted, self._next.get(wanted, 2)
        while hasattr(self._holder, name):
            name, number = f"{wanted}_{number}", number + 1
        self._next[wanted] = number
        return name


def _is_list(array: Array) -> bool:
    """Whether Python numbers hold the constant without a loss."""
    return array.ndim <= 1 and array.size <= 64 and array.dtype in _EXACT


_EXACT = (np.int64, np.int32, np.float32, np.bool_)


def _passed(array: Array) -> Any:
    return array.tolist() if is_small_integers(array) else torch.from_numpy(array)


def _as_array(value: Tensor) -> Array:
    found: Array = value.detach().contiguous().numpy()
    return found


def _array(tensor: Any, name: str) -> Array:
    try:
        array: Array = np.array(onnx.numpy_helper.to_array(tensor))  # a copy that may be written
        torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise ModelError(
            f"the constant {name!r} is of type {kind}, which is not supported",
            "export the model in float32",
        ) from error
    return array


def _attribute(attribute: Any, node: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return _array(value, label_of(node))
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return list(value) if attribute.type in _LISTS else value


_LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS)
_TYPES = {"value_int": np.int64, "value_ints": np.int64}


def _constant(attributes: Mapping[str, Any], node: Any) -> Array:
    ((name, value),) = attributes.items()
    if name == "value":
        array: Array = value
        return array
    if name not in ("value_int", "value_ints", "value_float", "value_floats"):
        raise ModelError(f"the constant {label_of(node)!r} has no numbers ({name})")
    return np.asarray(value, _TYPES.get(name, np.float32))
