"""The cheapest split against all splits, one by one."""

from __future__ import annotations

import random

import networkx
import pytest
from split_problems import Split, best_split, chain, every_split, random_problem
from splitpoint.partition.cuts.max_flow import FlowNetwork
from splitpoint.partition.cuts.min_cut import MODEL_INPUT, SplitProblem, TensorCost


def assert_best(problem: SplitProblem) -> Split:
    splits = every_split(problem)
    found, least = best_split(problem), min(split.cost for split in splits)
    assert found.cost == least
    assert found.on_edge in {split.on_edge for split in splits}  # it is closed
    return found


def test_random_graphs() -> None:
    rng = random.Random(1)
    inner = 0
    for trial in range(400):
        size = rng.randint(1, 9) if trial % 20 else 12
        found = assert_best(random_problem(rng, size))
        inner += 0 < len(found.on_edge) < size
    assert inner > 40  # the trials are not decided by the ends alone


def test_fourteen_layers() -> None:
    rng = random.Random(2)
    for _ in range(3):
        assert_best(random_problem(rng, 14))


def test_costs_of_very_different_size() -> None:
    tiny = chain([10**18, 2], [10**18, 1])  # all that counts is the last layer
    assert best_split(tiny).on_edge == frozenset()
    assert best_split(chain([10**18, 1], [10**18 + 2, 2])).on_edge == frozenset({0, 1})


def test_chains() -> None:
    rng = random.Random(4)
    for _ in range(100):
        n = rng.randint(1, 10)
        edge, up = ([rng.randint(0, 20) for _ in range(n)] for _ in range(2))
        by_prefix = [sum(edge[:k]) + (up[k] if k < n else 0) for k in range(n + 1)]
        assert best_split(chain(edge, up)).cost == min(by_prefix)


def test_nothing_returns_from_the_cloud() -> None:
    """Layer 0 is dear here, and so is sending what layer 1 reads beside its result."""
    inputs = (
        TensorCost(producer=MODEL_INPUT, consumers=(0,), up=0),
        TensorCost(producer=MODEL_INPUT, consumers=(1,), up=50),
    )
    one = TensorCost(producer=0, consumers=(1,), up=0)
    back = SplitProblem(layers=(100, 1), tensors=(*inputs, one))
    assert best_split(back) == Split(on_edge=frozenset(), cost=50)  # and not 1
    # The same where two layers read the tensor.
    two = TensorCost(producer=0, consumers=(1, 2), up=0)
    back = SplitProblem(layers=(100, 1, 1), tensors=(*inputs, two))
    assert best_split(back) == Split(on_edge=frozenset(), cost=50)


def test_a_tensor_is_paid_once_however_many_read_it() -> None:
    sent = TensorCost(producer=MODEL_INPUT, consumers=(0,), up=50)
    readers = SplitProblem(
        layers=(0, 10, 10, 10, 10, 10),
        tensors=(sent, TensorCost(producer=0, consumers=(1, 2, 3, 4, 5), up=20)),
    )
    assert best_split(readers) == Split(on_edge=frozenset({0}), cost=20)
    # Two tensors of one layer are two to send.
    two = SplitProblem(
        layers=(0, 10, 10),
        tensors=(
            sent,
            TensorCost(producer=0, consumers=(1,), up=7),
            TensorCost(producer=0, consumers=(2,), up=7),
        ),
    )
    assert best_split(two).cost == 14


def test_sending_the_input_can_win() -> None:
    assert best_split(chain([5, 5, 5], [1, 9, 9])) == Split(on_edge=frozenset(), cost=1)


def test_ties() -> None:
    assert best_split(chain([0, 0, 0], [0, 0, 0])) == Split(on_edge=frozenset(), cost=0)
    assert best_split(chain([3, 3], [6, 3])) == Split(on_edge=frozenset(), cost=6)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        chain([-1], [0])
    with pytest.raises(ValueError, match="negative"):
        chain([0], [-1])
    with pytest.raises(ValueError, match="no layer 3"):
        SplitProblem(layers=(), tensors=(TensorCost(producer=3, consumers=(), up=1),))
    with pytest.raises(ValueError, match="not all"):
        SplitProblem(layers=(), tensors=(TensorCost(producer=-1, consumers=(0,), up=1),))


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
