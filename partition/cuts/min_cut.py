"""The cheapest split of a model's graph between device and cloud, exactly.

A split is the set of layers that the device runs. Nothing returns from the cloud before the end,
so the set is closed: it holds whatever its layers read. That makes the cheapest split a minimum
cut (DADS: Hu et al., INFOCOM 2019): a layer on the source's side runs on the device.

    source -> layer     what the layer costs on the cloud, cut when it runs there
    layer -> sink       what it costs on the device
    producer -> tensor  what it costs to send the tensor, paid once however many layers read it
    tensor -> consumer  infinite: a tensor that one layer on the cloud reads is sent
    consumer -> producer  infinite: on the device only with all that it reads

The last line is what forbids a free way back; without it the cut may be cheaper than any split
that can run. Costs are floats of any one unit (ms, mJ). Every float is a fraction whose
denominator is a power of two, so the cut is computed in integers, and no other split is cheaper
by any margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from .max_flow import FlowNetwork

MODEL_INPUT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """What one layer costs on either side; `edge_only` keeps it on the device."""

    edge: float
    cloud: float
    edge_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCost:
    """A tensor with the layer that makes it (`MODEL_INPUT` for an input) and those that read it.

    `up` is paid once if it is made on the device and read on the cloud, `down` if it is made on
    the cloud (for the model's outputs, which return).
    """

    producer: int
    consumers: tuple[int, ...]
    up: float
    down: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitProblem:
    """Layers by index, the tensors between them, and what is paid once if any layer is remote.

    Raises `ValueError` for costs that are negative or not finite, and for unknown layers.
    """

    layers: tuple[LayerCost, ...]
    tensors: tuple[TensorCost, ...]
    cloud_fixed: float = 0.0

    def __post_init__(self) -> None:
        costs = [cost for layer in self.layers for cost in (layer.edge, layer.cloud)]
        costs += [cost for tensor in self.tensors for cost in (tensor.up, tensor.down)]
        if not all(0 <= cost < math.inf for cost in (*costs, self.cloud_fixed)):
            raise ValueError("costs are finite and not negative")
        known = range(len(self.layers))
        for tensor in self.tensors:
            if tensor.producer != MODEL_INPUT and tensor.producer not in known:
                raise ValueError(f"no layer {tensor.producer} makes a tensor")
            if not all(consumer in known for consumer in tensor.consumers):
                raise ValueError(f"of layers {tensor.consumers}, not all can read a tensor")


class ExactCosts:
    """A problem in integers: compute and sending apart, so that sending can be priced anew.

    A split's total at a pair of weights is `compute_weight * compute + up_weight * up`, with the
    pair (compute, up) as `parts_of` gives it, in units of `1 / scale`.
    """

    def __init__(self, problem: SplitProblem) -> None:
        self.problem = problem
        layers, tensors = problem.layers, problem.tensors
        costs = [cost for layer in layers for cost in (layer.edge, layer.cloud)]
        costs += [cost for tensor in tensors for cost in (tensor.up, tensor.down)]
        costs.append(problem.cloud_fixed)
        self.scale = max(float(cost).as_integer_ratio()[1] for cost in costs)
        self._edge = [self._exact(layer.edge) for layer in layers]
        self._cloud = [self._exact(layer.cloud) for layer in layers]
        for tensor in tensors:
            if tensor.producer != MODEL_INPUT:
                self._cloud[tensor.producer] += self._exact(tensor.down)
        self._up = [self._exact(tensor.up) for tensor in tensors]
        self._fixed = self._exact(problem.cloud_fixed)

    def _exact(self, cost: float) -> int:
        numerator, denominator = float(cost).as_integer_ratio()
        return numerator * (self.scale // denominator)

    def parts_of(self, on_edge: Set[int]) -> tuple[int, int]:
        """Compute (with what returns and the fixed cost) and sending of a closed set."""
        compute = sum(
            edge if index in on_edge else cloud
            for index, (edge, cloud) in enumerate(zip(self._edge, self._cloud, strict=True))
        )
        if len(on_edge) < len(self._edge):
            compute += self._fixed
        up = sum(
            cost
            for cost, tensor in zip(self._up, self.problem.tensors, strict=True)
            if (tensor.producer == MODEL_INPUT or tensor.producer in on_edge)
            and any(consumer not in on_edge for consumer in tensor.consumers)
        )
        return compute, up

    def cheapest(self, compute_weight: int = 1, up_weight: int = 1) -> frozenset[int]:
        """A split of least total at these weights: the layers on the device.

        Of equal ones, the one that runs everything there if that is among them and the cloud has a
        fixed cost, otherwise the one with the fewest layers there (it is part of all others).
        """
        compute = [
            (compute_weight * e, compute_weight * c)
            for e, c in zip(self._edge, self._cloud, strict=True)
        ]
        found = _closed_minimum(self.problem, compute, [up_weight * up for up in self._up])
        # The fixed cost concerns all splits but one: with it, only that one can overtake.
        everything = frozenset(range(len(self._edge)))
        if self._fixed and found != everything:
            totals = [
                compute_weight * c + up_weight * u
                for c, u in map(self.parts_of, (found, everything))
            ]
            if totals[1] <= totals[0]:
                return everything
        return found


def _closed_minimum(
    problem: SplitProblem, compute: Sequence[tuple[int, int]], up: Sequence[int]
) -> frozenset[int]:
    """The least closed set of least cost (edge, cloud per layer; up per tensor), none fixed."""
    source, sink, next_node = len(compute), len(compute) + 1, len(compute) + 2
    infinite = 1 + sum(edge + cloud for edge, cloud in compute) + sum(up)
    network = FlowNetwork(next_node + len(problem.tensors))
    for index, (edge, cloud) in enumerate(compute):
        # What both sides cost is paid anyway: only the difference matters to the cut.
        if problem.layers[index].edge_only:
            network.add_arc(source, index, infinite)
        elif cloud > edge:
            network.add_arc(source, index, cloud - edge)
        if edge > cloud:
            network.add_arc(index, sink, edge - cloud)
    for tensor, cost in zip(problem.tensors, up, strict=True):
        is_input = tensor.producer == MODEL_INPUT
        producer = source if is_input else tensor.producer
        back = 0 if is_input else infinite
        if len(tensor.consumers) == 1:
            network.add_arc(producer, tensor.consumers[0], cost, backwards=back)
        elif tensor.consumers:
            network.add_arc(producer, next_node, cost)
            for consumer in tensor.consumers:
                network.add_arc(next_node, consumer, infinite)
                if not is_input:
                    network.add_arc(consumer, producer, infinite)
            next_node += 1
    return frozenset(n for n in network.source_side(source, sink) if n < len(compute))
