"""Split problems and all their splits, written for being obvious."""

from __future__ import annotations

import random
from itertools import product

from splitpoint.partition.cuts.min_cut import (
    MODEL_INPUT,
    LayerCost,
    Split,
    SplitProblem,
    TensorCost,
)


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
