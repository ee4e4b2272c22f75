"""The cheapest split of a model's graph between device and cloud, exactly.

A split is the set of layers that the device runs. Nothing returns from the cloud before the end,
so the set is closed: it holds whatever its layers read. That makes the cheapest split a minimum
cut (DADS: Hu et al., INFOCOM 2019): a layer on the source's side runs on the device.

    layer -> sink       what the layer costs on the device; on the cloud it costs nothing
    producer -> tensor  what it costs to send the tensor, paid once however many layers read it
    tensor -> consumer  infinite: a tensor that one layer on the cloud reads is sent
    consumer -> producer  infinite: on the device only with all that it reads

The last line is what forbids a free way back; without it the cut may be cheaper than any split
that can run. Costs are whole numbers, so no other split is cheaper by any margin.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from .max_flow import FlowNetwork

MODEL_INPUT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCost:
    """A tensor with the layer that makes it (`MODEL_INPUT` for an input) and those that read it.

    `up` is paid once if it is made on the device and read on the cloud.
    """

    producer: int
    consumers: tuple[int, ...]
    up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitProblem:
    """What each layer costs on the device, by index, and the tensors between them.

    Raises `ValueError` for negative costs and for unknown layers.
    """

    layers: tuple[int, ...]
    tensors: tuple[TensorCost, ...]

    def __post_init__(self) -> None:
        if min((*self.layers, *(tensor.up for tensor in self.tensors)), default=0) < 0:
            raise ValueError("costs are not negative")
        known = range(len(self.layers))
        for tensor in self.tensors:
            if tensor.producer != MODEL_INPUT and tensor.producer not in known:
                raise ValueError(f"no layer {tensor.producer} makes a tensor")
            if not all(consumer in known for consumer in tensor.consumers):
                raise ValueError(f"of layers {tensor.consumers}, not all can read a tensor")

    def parts_of(self, on_edge: Set[int]) -> tuple[int, int]:
        """Compute and sending of a closed set, apart, so that sending can be priced anew."""
        up = sum(
            tensor.up
            for tensor in self.tensors
            if (tensor.producer == MODEL_INPUT or tensor.producer in on_edge)
            and any(consumer not in on_edge for consumer in tensor.consumers)
        )
        return sum(self.layers[index] for index in on_edge), up

    def cheapest(self, compute_weight: int = 1, up_weight: int = 1) -> frozenset[int]:
        """The layers on the device in a split of least `compute_weight * compute + up_weight * up`.

        Of equal ones it is the one with the fewest layers there, which is part of all others.
        """
        compute = [compute_weight * cost for cost in self.layers]
        up = [up_weight * tensor.up for tensor in self.tensors]
        source, sink, next_node = len(compute), len(compute) + 1, len(compute) + 2
        infinite = 1 + sum(compute) + sum(up)
        network = FlowNetwork(next_node + len(self.tensors))
        for index, cost in enumerate(compute):
            if cost:
                network.add_arc(index, sink, cost)
        for tensor, cost in zip(self.tensors, up, strict=True):
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
