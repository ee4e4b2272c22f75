"""Which cuts become boundaries, and the model of costs that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from splitpoint.codec import TensorSpec
from splitpoint.partition.bundle.graph import Cut, Layer, ModelGraph
from splitpoint.partition.bundle.roofline import Speed
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.cuts import choose
from splitpoint.partition.cuts.choose import choose_cuts
from splitpoint.partition.cuts.envelope import bandwidth_envelope
from splitpoint.partition.cuts.fusion import fuse
from splitpoint.partition.cuts.scenarios import (
    group_times_ms,
    split_problem,
    weigh_cuts,
)
from splitpoint.partition.model_spec import ModelSpec


def spec(name: str, values: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(1, values), batch_dim=0)


def graph_of(
    layers: Sequence[tuple[str, tuple[int, ...], int, int]], input_values: int = 1000
) -> ModelGraph:
    """Layers as (op, inputs, output values, flops); cuts as capture finds them."""
    sizes = {i: values for i, (_, _, values, _) in enumerate(layers)}
    last = len(layers) - 1
    cuts = [Cut(after=-1, tensors=(spec("input", input_values),))]
    for after in range(last):
        alive = [
            spec(f"t{p}" if p >= 0 else "input", sizes.get(p, input_values))
            for p in range(-1, after + 1)
            if any(p in inputs for _, inputs, _, _ in layers[after + 1 :])
        ]
        cuts.append(Cut(after=after, tensors=tuple(alive)))
    cuts.append(Cut(after=last, tensors=(spec(f"t{last}", sizes[last]),)))
    crossing = {cut.after: cut.nbytes for cut in cuts}
    records = tuple(
        Layer(
            name=f"{op}{i}",
            op=op,
            output_shape=(values,),
            dtype="float32",
            output_bytes=4 * values,
            flops=flops,
            params=0,
            param_bytes=0,
            inputs=inputs,
            crossing_bytes=crossing[i],
        )
        for i, (op, inputs, values, flops) in enumerate(layers)
    )
    return ModelGraph(layers=records, cuts=tuple(cuts), unsupported_ops=())


def groups_of(graph: ModelGraph) -> set[tuple[int, ...]]:
    return set(fuse(graph).members)


def test_convolution_norm_activation_and_pooling_are_one() -> None:
    graph = graph_of(
        [
            ("mul", (-1,), 400, 1),
            ("conv2d", (0,), 400, 100),
            ("batch_norm", (1,), 400, 1),
            ("relu", (2,), 400, 1),
            ("max_pool2d", (3,), 100, 1),
            ("constant_pad_nd", (4,), 121, 0),
            ("conv2d", (5,), 100, 100),
        ]
    )
    assert groups_of(graph) == {(0, 1, 2, 3, 4), (5, 6)}


def test_a_sum_ends_what_it_adds_and_a_norm_beside_it_does_not() -> None:
    graph = graph_of(
        [
            ("linear", (-1,), 100, 9),
            ("linear", (0,), 100, 9),
            ("add", (0, 1), 100, 1),
            ("layer_norm", (2,), 100, 1),  # the sum lives on: a cut here would send both
            ("linear", (3,), 100, 9),
            ("sigmoid", (4,), 100, 1),
            ("mul", (4, 5), 100, 1),  # x·sigmoid(x)
            ("add", (2, 6), 100, 1),
        ]
    )
    assert groups_of(graph) == {(0,), (1, 2), (3, 4, 5, 6, 7)}


def test_groups_never_wait_for_each_other() -> None:
    # A gated unit whose halves run side by side: the norm would join the first half, the product
    # as well, and the second half reads the one and is read by the other.
    graph = graph_of(
        [
            ("linear", (-1,), 10, 9),
            ("layer_norm", (0,), 10, 1),
            ("linear", (1,), 10, 9),
            ("linear", (1,), 10, 9),
            ("silu", (2,), 10, 1),
            ("mul", (3, 4), 10, 1),
            ("linear", (5,), 10, 9),
            ("add", (0, 6), 10, 1),
        ]
    )
    fused = fuse(graph)
    assert sorted(i for members in fused.members for i in members) == list(range(8))
    assert (6, 7) in fused.members
    assert fused.group_of[3] != fused.group_of[2]
    for index, layer in enumerate(graph.layers):
        for source in layer.inputs:
            if source >= 0:
                assert fused.group_of[source] <= fused.group_of[index]


def test_where_no_cut_is_possible_nothing_is_sent() -> None:
    graph = graph_of([("linear", (-1,), 10, 9), ("linear", (0,), 10, 9), ("linear", (1,), 10, 9)])
    broken = ModelGraph(
        layers=(replace(graph.layers[0], crossing_bytes=None), *graph.layers[1:]),
        cuts=(graph.cuts[0], *graph.cuts[2:]),
        unsupported_ops=(),
    )
    assert groups_of(broken) == {(0, 1), (2,)}


def test_times_are_the_roofline_by_hand() -> None:
    graph = graph_of(
        [("conv2d", (-1,), 500, 4_000_000), ("relu", (0,), 500, 500), ("linear", (1,), 10, 10_000)]
    )
    device = Speed(gflops=2, gb_s=1, overhead_us=7)
    # 4,000,500 operations at 2 per ns; 4 kB read and 2 kB written take less.
    # 10,000 operations take 5 us, 2,040 bytes at 1 a ns take 2.04 us.
    assert group_times_ms(graph, fuse(graph), device) == [
        pytest.approx(2.00025 + 0.007),
        pytest.approx(0.005 + 0.007),
    ]
    wide = Speed(gflops=1000, gb_s=1, overhead_us=0)
    # What the convolution hands to its own activation never reaches memory.
    assert group_times_ms(graph, fuse(graph), wide) == [
        pytest.approx(0.006),
        pytest.approx(0.00204),
    ]


def test_on_a_chain_some_candidate_is_always_best() -> None:
    rng = np.random.default_rng(0)
    sizes = [int(v) for v in rng.integers(10, 5000, 12)]
    graph = graph_of([("linear", (i - 1,), v, 10_000 * v) for i, v in enumerate(sizes)], 9000)
    candidates = list(range(1, 12))
    regret, weight = weigh_cuts(graph, candidates)
    assert regret.min() >= 0
    assert np.allclose(regret.min(1), 0, atol=1e-12)
    assert weight.sum() == pytest.approx(1)
    # What the envelope calls the best is among the cuts that win somewhere.
    device = Speed(gflops=5, gb_s=3, overhead_us=20)
    fused = fuse(graph)
    pieces = bandwidth_envelope(split_problem(graph, fused, group_times_ms(graph, fused, device)))
    assert {p.nbytes for p in pieces} <= {0, *(cut.nbytes for cut in graph.cuts[:-1])}


def test_a_bottleneck_is_found_first() -> None:
    """One narrow place in the early compute beats every even division."""
    sizes = [50_000, 50_000, 300, 50_000, 50_000, 50_000, 50_000, 10]
    graph = graph_of([("linear", (i - 1,), v, 10**8) for i, v in enumerate(sizes)], 50_000)
    assert choose_cuts(graph, 3) == [0, 3, 8]
    # Without it, something else: never what is excluded.
    assert choose_cuts(graph, 3, frozenset({3}))[1] not in (0, 3, 8)
    assert choose_cuts(graph, 9) == list(range(9))


def test_two_tensors_cost_what_both_weigh() -> None:
    # Both cuts have one tensor of 400 bytes; at the second a skip of 4,000 crosses as well.
    graph = graph_of(
        [
            ("linear", (-1,), 1000, 10**8),
            ("linear", (0,), 100, 10**8),
            ("linear", (1,), 100, 10**8),
            ("linear", (2,), 1000, 10**8),
            ("add", (0, 3), 1000, 1),
            ("linear", (4,), 100, 10**8),
            ("linear", (5,), 1000, 10**8),
        ],
        100_000,
    )
    assert choose_cuts(graph, 3)[1] in (1, 6)


def test_growing_exclusions_do_not_weigh_again(
    small: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = capture(small.module, small.args).graph
    calls = 0

    def counted(*args: object) -> object:
        nonlocal calls
        calls += 1
        return weigh_cuts(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(choose, "weigh_cuts", counted)
    choose._weighed.cache_clear()
    excluded: set[int] = set()
    for _ in range(4):
        chosen = choose_cuts(graph, 4, frozenset(excluded))
        assert not excluded & set(chosen)
        excluded |= set(chosen[1:-1][:1])
    assert calls == 1
    assert choose_cuts(graph, 8, frozenset(range(1, len(graph.cuts) - 1))) == [
        0,
        len(graph.cuts) - 1,
    ]


@pytest.mark.slow
def test_lite0_is_cut_at_its_narrow_places(lite0: ModelSpec) -> None:
    graph = capture(lite0.module, lite0.args, name_prefix=lite0.layer_prefix).graph
    chosen = choose_cuts(graph)
    shapes = [[t.shape_without_batch for t in graph.cuts[i].tensors] for i in chosen]
    assert len(chosen) == 8
    for narrow in ((24, 56, 56), (40, 28, 28), (80, 14, 14), (192, 7, 7)):
        assert [narrow] in shapes
    assert shapes[0] == [(224, 224, 3)]
    # What runtimes fuse stays whole: no boundary inside a group.
    ends = [(members[0], members[-1]) for members in fuse(graph).members]
    for index in chosen:
        after = graph.cuts[index].after
        assert not any(first <= after < end for first, end in ends)
    # None can be dropped that the modelled costs asked for: each wins somewhere.
    regret, _ = weigh_cuts(graph, chosen[1:-1])
    for index in chosen[1:5]:
        others = [i for i in chosen if i != index]
        assert (regret[:, index] < regret[:, others].min(1)).any()
