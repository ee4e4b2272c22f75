"""Split problems and all their splits, written for being obvious."""

from __future__ import annotations

import math
import random
from collections.abc import Set
from dataclasses import dataclass
from itertools import product

from splitpoint.partition.cuts.min_cut import (
    MODEL_INPUT,
    ExactCosts,
    LayerCost,
    SplitProblem,
    TensorCost,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The layers on the device and what the split costs, in the unit of its problem."""

    on_edge: frozenset[int]
    cost: float


def best_split(problem: SplitProblem) -> Split:
    """A split of least cost.

    Of equal ones, the one that runs everything on the device if that is among them and the cloud
    has a fixed cost, otherwise the one with the fewest layers there (it is part of all others).
    """
    on_edge = ExactCosts(problem).cheapest()
    return Split(on_edge=on_edge, cost=split_cost(problem, on_edge))


def split_cost(problem: SplitProblem, on_edge: Set[int]) -> float:
    """What a split costs, rounded once. `ValueError` if it would need a way back."""
    everything = range(len(problem.layers))
    costs = [
        layer.edge if index in on_edge else layer.cloud
        for index, layer in enumerate(problem.layers)
    ]
    for tensor in problem.tensors:
        made_on_edge = tensor.producer == MODEL_INPUT or tensor.producer in on_edge
        if not made_on_edge:
            if not on_edge.isdisjoint(tensor.consumers):
                raise ValueError(f"a tensor of layer {tensor.producer} would have to return")
            costs.append(tensor.down)
        elif any(consumer not in on_edge for consumer in tensor.consumers):
            costs.append(tensor.up)
    remote = any(index not in on_edge for index in everything)
    return math.fsum([*costs, problem.cloud_fixed if remote else 0.0])


def random_problem(
    rng: random.Random, layers: int, *, energy: bool = False, integers: bool = True
) -> SplitProblem:
    """Skip edges, several inputs, layers with several tensors, and some that nobody reads."""

    def cost(most: int) -> float:
        return (
            float(rng.randint(0, most))
            if integers
            else rng.random() * most * 10 ** rng.uniform(-6, 3)
        )

    tensors = []
    for producer in [MODEL_INPUT] * rng.randint(1, 3) + list(range(layers)):
        later = list(range(producer + 1, layers))
        for _ in range(rng.choice([1, 1, 1, 2])):
            near = later[: rng.choice([1, 2, 4, layers])]
            consumers = tuple(sorted(rng.sample(near, min(len(near), rng.choice([0, 1, 1, 2, 3])))))
            down = cost(5) if not consumers else 0.0
            tensors.append(
                TensorCost(producer=producer, consumers=consumers, up=cost(12), down=down)
            )
    return SplitProblem(
        layers=tuple(
            LayerCost(
                edge=cost(10),
                cloud=0.0 if energy else cost(4),
                edge_only=rng.random() < 0.05,
            )
            for _ in range(layers)
        ),
        tensors=tuple(tensors),
        cloud_fixed=rng.choice([0.0, 0.0, cost(8)]),
    )


def chain(edge: list[float], cloud: list[float], up: list[float], fixed: float = 0) -> SplitProblem:
    """`up[i]` is the cost of sending what layer i reads."""
    return SplitProblem(
        layers=tuple(LayerCost(edge=e, cloud=c) for e, c in zip(edge, cloud, strict=True)),
        tensors=tuple(
            TensorCost(producer=i - 1, consumers=(i,), up=cost) for i, cost in enumerate(up)
        ),
        cloud_fixed=fixed,
    )


def every_split(problem: SplitProblem) -> list[Split]:
    """All that can run; written for being obvious, with nothing of the code under test."""
    splits = []
    layers, tensors = problem.layers, problem.tensors
    for here in product([False, True], repeat=len(layers)):
        if any(layer.edge_only and not on for layer, on in zip(layers, here, strict=True)):
            continue
        cost, legal = 0.0, True
        for layer, on in zip(layers, here, strict=True):
            cost += layer.edge if on else layer.cloud
        for tensor in tensors:
            made_here = tensor.producer == MODEL_INPUT or here[tensor.producer]
            if made_here and not all(here[c] for c in tensor.consumers):
                cost += tensor.up
            if not made_here:
                legal = legal and not any(here[c] for c in tensor.consumers)
                cost += tensor.down
        if not all(here):
            cost += problem.cloud_fixed
        if legal:
            on_edge = frozenset(i for i, on in enumerate(here) if on)
            splits.append(Split(on_edge=on_edge, cost=cost))
    return splits
