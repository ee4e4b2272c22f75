"""What each cut of a model would cost on devices, links and codecs that it may meet.

Everything here is modelled, for one purpose: to choose boundaries before anything was measured.
A fused group of layers takes the time of the roofline plus a fixed time a kernel. The cloud is the
same machine so many times faster. The ranges are wide because the planner measures later: a cut
that wins nowhere in them is not worth a segment.

With the device's time E(S) of a split S, its share of the cloud's E - E(S) at a speed-up r, bytes
B(S) after coding and x ms a byte, a frame takes

    E/r + (1 - 1/r)·E(S) + x·B(S) + (a round trip, unless all runs on the device).

So r only stretches x, and so does a codec that shrinks input and activations alike: one bandwidth
envelope for each device and each *ratio* of the two serves all speed-ups and links exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from splitpoint.codec import TensorSpec

from ..bundle.flops import is_heavy
from ..bundle.graph import Cut, ModelGraph
from ..bundle.roofline import Speed
from .envelope import MBPS_NS_PER_BYTE, Piece, bandwidth_envelope
from .fusion import Fused, fuse
from .min_cut import MODEL_INPUT, SplitProblem, TensorCost

Floats = NDArray[np.float64]

SCENARIO_DEVICES = (
    Speed(gflops=5, gb_s=3, overhead_us=20),  # like a Raspberry Pi 4
    Speed(gflops=25, gb_s=8, overhead_us=10),
    Speed(gflops=100, gb_s=20, overhead_us=5),  # like a desktop
)
# At 1, a server loaded until it is no faster, nothing beats staying on the device.
SPEEDUPS = (1.5, 5, 20, 100)
ROUND_TRIPS_MS = (5, 50)
MBPS = (0.5, 1000)
ACTIVATION_FACTORS = (1, 0.2, 0.03)  # raw float32, 8 bits and entropy coding, transform coding
INPUT_FACTORS = (1,)
PICTURE_FACTORS = (1, 0.13)  # uint8 pixels, JPEG
OCTAVE = math.log(2)


class Weighed(NamedTuple):
    """Points of (scenario, bandwidth) in rows.

    `regret[p, c]` is how much slower cut c is than the best split at point p, relative to that;
    `weight[p]` is the point's share, of all scenarios together 1.
    """

    regret: Floats
    weight: Floats


def group_times_ms(graph: ModelGraph, fused: Fused, device: Speed) -> list[float]:
    """The device's modelled milliseconds for each fused group, for one sample.

    They are whole nanoseconds.
    """
    leaving = _leaving_groups(graph, fused)
    input_bytes = graph.cuts[0].nbytes
    times = []
    for members in fused.members:
        layers = [graph.layers[i] for i in members]
        sources = {source for layer in layers for source in layer.inputs} - set(members)
        traffic = sum(layer.param_bytes for layer in layers)
        traffic += sum(graph.layers[s].output_bytes if s >= 0 else input_bytes for s in sources)
        traffic += sum(
            graph.layers[i].output_bytes for i in members if leaving[i] or i == members[-1]
        )
        operations = sum(layer.flops or 0 for layer in layers)
        times.append(round(device.ms(operations, traffic), 6))
    return times


def split_problem(
    graph: ModelGraph, fused: Fused, times_ms: Sequence[float], input_ratio: float = 1.0
) -> SplitProblem:
    """The model as a split problem whose layers are fused groups, and a cloud that takes no time.

    Costs are in nanoseconds; sending costs raw bytes, for the model's inputs times `input_ratio`.
    """
    tensors = [
        TensorCost(producer=MODEL_INPUT, consumers=groups, up=_sent_bytes(spec, input_ratio))
        for spec, groups in _inputs(graph, fused)
    ]
    for layer, groups in enumerate(_leaving_groups(graph, fused)):
        if groups:
            nbytes = graph.layers[layer].output_bytes
            producer = fused.group_of[layer]
            tensors.append(TensorCost(producer=producer, consumers=groups, up=nbytes))
    layers = tuple(round(ms * 1e6) for ms in times_ms)
    return SplitProblem(layers=layers, tensors=tuple(tensors))


def weigh_cuts(graph: ModelGraph, candidates: Sequence[int]) -> Weighed:
    """The regret of the model's cuts wherever the modelled scenarios lead.

    The best split is the least of all splits of the fused graph and of `candidates` (indices into
    `graph.cuts`), among which a cut may take a group apart.
    """
    fused = fuse(graph)
    possible = [0, *candidates, len(graph.cuts) - 1]
    regrets: list[Floats] = []
    weights: list[Floats] = []
    for device in SCENARIO_DEVICES:
        times = group_times_ms(graph, fused, device)
        edge_ms = _prefix_ms(graph, fused, times)
        envelopes: dict[float, tuple[Piece, ...]] = {}
        for sent, kept in product(_input_factors(graph.cuts[0]), ACTIVATION_FACTORS):
            ratio = sent / kept
            if ratio not in envelopes:
                problem = split_problem(graph, fused, times, ratio)
                envelopes[ratio] = bandwidth_envelope(problem)
            pieces = envelopes[ratio]
            cuts = _Lines(edge_ms, _prefix_bytes(graph, ratio) * kept, sum(times))
            splits = _Lines(
                np.array([piece.compute_ns / 1e6 for piece in pieces]),
                np.array([piece.nbytes for piece in pieces]) * kept,
                sum(times),
            )
            for speedup, round_trip in product(SPEEDUPS, ROUND_TRIPS_MS):
                points, weight = _points(pieces, (1 - 1 / speedup) / kept)
                cost = cuts.cost_ms(points, speedup, round_trip)
                best = splits.cost_ms(points, speedup, round_trip).min(1)
                best = np.minimum(best, cost[:, possible].min(1))
                regrets.append(cost / best[:, None] - 1)
                weights.append(weight)
    weight = np.concatenate(weights)
    return Weighed(np.concatenate(regrets), weight / weight.sum())


class _Lines(NamedTuple):
    edge_ms: Floats
    nbytes: Floats
    total_ms: float

    def cost_ms(self, mbps: Floats, speedup: float, round_trip_ms: float) -> Floats:
        """[points, splits]; a split that sends nothing is all on the device."""
        fixed = self.total_ms / speedup + (1 - 1 / speedup) * self.edge_ms
        fixed = fixed + np.where(self.nbytes > 0, round_trip_ms, 0)
        cost: Floats = fixed + self.nbytes * (MBPS_NS_PER_BYTE / 1e6 / mbps)[:, None]
        return cost


def _points(pieces: Sequence[Piece], stretch: float) -> tuple[Floats, Floats]:
    """Bandwidths in the middle of each interval of the envelope, with its width in octaves.

    No point stands for more than an octave. The envelope is of a cloud that takes no time;
    `stretch` turns its x into that of the scenario.
    """
    changes = [piece.to_mbps / stretch for piece in pieces[:-1]]
    edges = sorted({float(min(max(mbps, MBPS[0]), MBPS[1])) for mbps in (*MBPS, *changes)})
    middles, widths = [], []
    for low, high in pairwise(map(math.log, edges)):
        parts = math.ceil((high - low) / OCTAVE)
        for part in range(parts):
            middles.append(math.exp(low + (high - low) * (part + 0.5) / parts))
            widths.append((high - low) / parts / OCTAVE)
    return np.array(middles), np.array(widths)


def _input_factors(cut: Cut) -> tuple[float, ...]:
    first = cut.tensors[0]
    shape = first.shape_without_batch
    is_picture = len(cut.tensors) == 1 and first.dtype == "uint8" and shape[2:] == (3,)
    return PICTURE_FACTORS if is_picture else INPUT_FACTORS


def _prefix_ms(graph: ModelGraph, fused: Fused, times_ms: Sequence[float]) -> Floats:
    """The device's time up to each cut; a group that the cut takes apart counts where its heavy
    layer is."""
    own = [0.0] * len(graph.layers)
    for members, ms in zip(fused.members, times_ms, strict=True):
        heavy = [i for i in members if is_heavy(graph.layers[i].op)]
        own[(heavy or members)[0]] += ms
    done = np.cumsum([0.0, *own])
    return np.array([done[cut.after + 1] for cut in graph.cuts])


def _sent_bytes(spec: TensorSpec, ratio: float) -> int:
    return round(spec.nbytes_at(1) * ratio)


def _prefix_bytes(graph: ModelGraph, input_ratio: float) -> Floats:
    inputs = {spec.name for spec in graph.cuts[0].tensors}
    sizes = [
        sum(_sent_bytes(spec, input_ratio if spec.name in inputs else 1) for spec in cut.tensors)
        for cut in graph.cuts
    ]
    return np.array([*sizes[:-1], 0.0])  # at the last cut nothing is left to send


def _leaving_groups(graph: ModelGraph, fused: Fused) -> list[tuple[int, ...]]:
    """For each layer, the other groups that read it."""
    readers: list[set[int]] = [set() for _ in graph.layers]
    for index, layer in enumerate(graph.layers):
        for source in layer.inputs:
            if source >= 0 and fused.group_of[source] != fused.group_of[index]:
                readers[source].add(fused.group_of[index])
    return [tuple(sorted(groups)) for groups in readers]


def _inputs(graph: ModelGraph, fused: Fused) -> Iterator[tuple[TensorSpec, tuple[int, ...]]]:
    """The specification and the reading groups of each of the model's inputs.

    Layers say that they read an input, not which: of several, each is taken to be read by all of
    them up to the one after the last cut that carries it.
    """
    reading = [i for i, layer in enumerate(graph.layers) if -1 in layer.inputs]
    for spec in graph.cuts[0].tensors:
        carried = [cut.after for cut in graph.cuts[:-1] if spec in cut.tensors]
        later = [i for i in reading if i > max(carried)]
        until = later[0] if later else reading[-1]
        yield spec, tuple(sorted({fused.group_of[i] for i in reading if i <= until}))
