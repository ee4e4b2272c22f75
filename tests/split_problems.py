"""Split problems and all their splits, written for being obvious."""

from __future__ import annotations

import random
from collections.abc import Set
from dataclasses import dataclass
from itertools import product

from splitpoint.partition.cuts.min_cut import MODEL_INPUT, SplitProblem, TensorCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The layers on the device and what the split costs, in the unit of its problem."""

    on_edge: frozenset[int]
    cost: int


def best_split(problem: SplitProblem) -> Split:
    """A split of least cost; of equal ones, the one with the fewest layers on the device."""
    on_edge = problem.cheapest()
    return Split(on_edge=on_edge, cost=split_cost(problem, on_edge))


def split_cost(problem: SplitProblem, on_edge: Set[int]) -> int:
    """What a split costs. `ValueError` if it would need a way back."""
    cost = sum(problem.layers[index] for index in on_edge)
    for tensor in problem.tensors:
        made_on_edge = tensor.producer == MODEL_INPUT or tensor.producer in on_edge
        if not made_on_edge and not on_edge.isdisjoint(tensor.consumers):
            raise ValueError(f"a tensor of layer {tensor.producer} would have to return")
        if made_on_edge and any(consumer not in on_edge for consumer in tensor.consumers):
            cost += tensor.up
    return cost


def random_problem(rng: random.Random, layers: int) -> SplitProblem:
    """Skip edges, several inputs, layers with several tensors, and some that nobody reads."""
    tensors = []
    for producer in [MODEL_INPUT] * rng.randint(1, 3) + list(range(layers)):
        later = list(range(producer + 1, layers))
        for _ in range(rng.choice([1, 1, 1, 2])):
            near = later[: rng.choice([1, 2, 4, layers])]
            consumers = tuple(sorted(rng.sample(near, min(len(near), rng.choice([0, 1, 1, 2, 3])))))
            # What is sent shrinks on the way, or nothing would ever be computed first.
            up = rng.randint(0, 12 + 4 * (layers - producer))
            tensors.append(TensorCost(producer=producer, consumers=consumers, up=up))
    costs = tuple(rng.randint(0, 10) for _ in range(layers))
    return SplitProblem(layers=costs, tensors=tuple(tensors))


def chain(layers: list[int], up: list[int]) -> SplitProblem:
    """`up[i]` is the cost of sending what layer i reads."""
    return SplitProblem(
        layers=tuple(layers),
        tensors=tuple(
            TensorCost(producer=i - 1, consumers=(i,), up=cost) for i, cost in enumerate(up)
        ),
    )


def every_split(problem: SplitProblem) -> list[Split]:
    """All that can run; written for being obvious, with nothing of the code under test."""
    splits = []
    for here in product([False, True], repeat=len(problem.layers)):
        cost = sum(layer for layer, on in zip(problem.layers, here, strict=True) if on)
        legal = True
        for tensor in problem.tensors:
            made_here = tensor.producer == MODEL_INPUT or here[tensor.producer]
            if made_here and not all(here[c] for c in tensor.consumers):
                cost += tensor.up
            if not made_here:
                legal = legal and not any(here[c] for c in tensor.consumers)
        if legal:
            on_edge = frozenset(i for i, on in enumerate(here) if on)
            splits.append(Split(on_edge=on_edge, cost=cost))
    return splits
