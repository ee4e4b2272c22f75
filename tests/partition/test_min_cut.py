"""The cheapest split against all splits, one by one."""

from __future__ import annotations

import random

import networkx
import pytest
from split_problems import Split, best_split, chain, every_split, random_problem, split_cost
from splitpoint.partition.cuts.max_flow import FlowNetwork
from splitpoint.partition.cuts.min_cut import (
    MODEL_INPUT,
    LayerCost,
    SplitProblem,
    TensorCost,
)


def assert_best(problem: SplitProblem, relative: float = 0.0) -> Split:
    splits = every_split(problem)
    found, least = best_split(problem), min(split.cost for split in splits)
    assert found.cost == pytest.approx(least, rel=relative, abs=0)
    assert found.on_edge in {split.on_edge for split in splits}  # it is closed and keeps the pins
    assert split_cost(problem, found.on_edge) == found.cost
    return found


@pytest.mark.parametrize("energy", [False, True], ids=["latency", "energy"])
def test_random_graphs(energy: bool) -> None:
    rng = random.Random(1)
    inner = 0
    for trial in range(200):
        size = rng.randint(1, 9) if trial % 20 else 12
        found = assert_best(random_problem(rng, size, energy=energy))
        inner += 0 < len(found.on_edge) < size
    assert inner > 40  # the trials are not decided by the ends alone


def test_fourteen_layers() -> None:
    rng = random.Random(2)
    for _ in range(3):
        assert_best(random_problem(rng, 14))


def test_costs_of_very_different_size() -> None:
    """Rounding to a fixed grid would lose the small ones."""
    rng = random.Random(3)
    for _ in range(100):
        assert_best(random_problem(rng, rng.randint(1, 8), integers=False), relative=1e-12)
    tiny = chain([1e9, 2e-9], [0, 1e-9], [1e9, 0])  # all that counts is the last layer
    assert best_split(tiny).on_edge != frozenset({0, 1})


def test_chains() -> None:
    rng = random.Random(4)
    for _ in range(100):
        n = rng.randint(1, 10)
        edge, cloud, up = ([float(rng.randint(0, 20)) for _ in range(n)] for _ in range(3))
        fixed = float(rng.choice([0, 5]))
        by_prefix = [
            sum(edge[:k]) + sum(cloud[k:]) + (up[k] + fixed if k < n else 0) for k in range(n + 1)
        ]
        assert best_split(chain(edge, cloud, up, fixed)).cost == min(by_prefix)


def test_nothing_returns_from_the_cloud() -> None:
    """Layer 1 is dear here and layer 2 is dear there; sending is free on the way up."""
    problem = chain([1, 100, 1], [100, 1, 100], [0, 0, 0])
    assert 1 + 1 + 1 < best_split(problem).cost == 102
    # The same with a way around: layer 2 reads layers 0 and 1.
    skip = SplitProblem(
        layers=problem.layers,
        tensors=(
            TensorCost(producer=MODEL_INPUT, consumers=(0,), up=0),
            TensorCost(producer=0, consumers=(1, 2), up=0),
            TensorCost(producer=1, consumers=(2,), up=0),
        ),
    )
    assert best_split(skip) == Split(on_edge=frozenset({0}), cost=102)


def test_a_tensor_is_paid_once_however_many_read_it() -> None:
    layers = (LayerCost(edge=0, cloud=50), *[LayerCost(edge=10, cloud=0)] * 5)
    readers = SplitProblem(
        layers=layers,
        tensors=(
            TensorCost(producer=MODEL_INPUT, consumers=(0,), up=0),
            TensorCost(producer=0, consumers=(1, 2, 3, 4, 5), up=20),
        ),
    )
    assert best_split(readers) == Split(on_edge=frozenset({0}), cost=20)
    # Two tensors of one layer are two to send.
    two = SplitProblem(
        layers=layers[:3],
        tensors=(
            TensorCost(producer=0, consumers=(1,), up=7),
            TensorCost(producer=0, consumers=(2,), up=7),
        ),
    )
    assert best_split(two).cost == 14


def test_sending_the_input_can_win() -> None:
    assert best_split(chain([5, 5, 5], [1, 1, 1], [1, 9, 9])) == Split(on_edge=frozenset(), cost=4)


def test_ties() -> None:
    free = chain([0, 0, 0], [0, 0, 0], [0, 0, 0])
    assert best_split(free) == Split(on_edge=frozenset(), cost=0)
    # A round trip that pays for itself exactly is not made.
    even = chain([3, 3], [1, 1], [0, 0], fixed=4)
    assert best_split(even) == Split(on_edge=frozenset({0, 1}), cost=6)
    assert best_split(chain([3, 3], [1, 1], [0, 0], fixed=3.5)).on_edge == frozenset()


def test_pins_pull_in_what_they_read() -> None:
    problem = chain([9, 9, 9], [0, 0, 0], [0, 0, 0])
    layers = (problem.layers[0], LayerCost(edge=9, cloud=0, edge_only=True), problem.layers[2])
    pinned = SplitProblem(layers=layers, tensors=problem.tensors)
    assert best_split(pinned) == Split(on_edge=frozenset({0, 1}), cost=18)


def test_returning_outputs_count() -> None:
    problem = SplitProblem(
        layers=(LayerCost(edge=5, cloud=1),),
        tensors=(
            TensorCost(producer=MODEL_INPUT, consumers=(0,), up=1),
            TensorCost(producer=0, consumers=(), up=0, down=2.5),
        ),
    )
    assert best_split(problem) == Split(on_edge=frozenset(), cost=4.5)


def test_nonsense_is_refused() -> None:
    for cost in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            chain([cost], [0], [0])
    with pytest.raises(ValueError, match="no layer 3"):
        SplitProblem(layers=(), tensors=(TensorCost(producer=3, consumers=(), up=1),))
    with pytest.raises(ValueError, match="not all"):
        SplitProblem(layers=(), tensors=(TensorCost(producer=-1, consumers=(0,), up=1),))
    with pytest.raises(ValueError, match="have to return"):
        split_cost(chain([1, 1], [1, 1], [1, 1]), {1})


def test_flows_of_a_thousand_nodes_and_of_any_size() -> None:
    """Against networkx, with capacities past 64 bits."""
    rng = random.Random(5)
    for big in (1, 2**70):
        network, graph = FlowNetwork(1000), networkx.DiGraph()
        for _ in range(4000):
            tail, head = rng.sample(range(1000), 2)
            if not graph.has_edge(tail, head) and not graph.has_edge(head, tail):
                capacity = rng.randint(1, 1000) * big + rng.randint(0, 1)
                graph.add_edge(tail, head, capacity=capacity)
                network.add_arc(tail, head, capacity)
        side = network.source_side(0, 999)
        crossing = sum(
            c["capacity"] for u, v, c in graph.edges(data=True) if u in side and v not in side
        )
        assert crossing == networkx.maximum_flow_value(graph, 0, 999) > 0
