"""Layers that a runtime computes as one, and the graph of those groups.

A runtime writes convolution, normalisation and activation as one kernel: between them there is
no tensor to send, and their times do not add up. So each heavy operation (`flops.is_heavy`) forms
a group with the light layers that follow it, up to where the fewest bytes are left to send, the
last of equals. Light layers that remain (a layer norm whose input lives on beside it, padding, a
concatenation that keeps its parts alive) cost little and make nothing narrower: they belong to
the next layer that reads them. A layer after which no cut is possible stays with its readers.
Last, groups that would have to wait for each other are taken apart, so the groups form a DAG.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from ..bundle.flops import is_heavy
from ..bundle.graph import ModelGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """`members[g]` are the layers of group g in execution order; `group_of` is the inverse.

    Groups are ordered so that each reads from earlier ones only.
    """

    members: tuple[tuple[int, ...], ...]
    group_of: tuple[int, ...]


def readers_of(graph: ModelGraph) -> list[list[int]]:
    """For each layer, the layers that read it."""
    readers: list[list[int]] = [[] for _ in graph.layers]
    for index, layer in enumerate(graph.layers):
        for source in layer.inputs:
            if source >= 0:
                readers[source].append(index)
    return readers


def fuse(graph: ModelGraph) -> Fused:
    """The groups of a model's layers."""
    readers = readers_of(graph)
    label = list(range(len(graph.layers)))  # the layer that a layer's group is called after
    for tentative in _with_followers(graph):
        for layer in _narrowest_part(graph, readers, tentative):
            label[layer] = tentative[0]
    heads = {name for layer, name in enumerate(label) if is_heavy(graph.layers[layer].op)}
    for layer in reversed(range(len(label))):
        if label[layer] not in heads and readers[layer]:
            label[layer] = label[readers[layer][0]]
    for layer, record in enumerate(graph.layers):
        if record.crossing_bytes is None:
            for reader in readers[layer]:
                old, new = label[reader], label[layer]
                label = [new if name == old else name for name in label]
    return _acyclic(graph, label)


def _with_followers(graph: ModelGraph) -> Iterable[list[int]]:
    """Each heavy layer with the light ones whose latest input is it or its followers."""
    group: dict[int, list[int]] = {}
    for index, layer in enumerate(graph.layers):
        latest = max(layer.inputs, default=-1)
        if is_heavy(layer.op):
            group[index] = [index]
        elif latest in group:
            group[index] = group[latest]
            group[index].append(index)
    return (members for layer, members in group.items() if layer == members[0])


def _narrowest_part(
    graph: ModelGraph, readers: Sequence[Sequence[int]], members: Sequence[int]
) -> Sequence[int]:
    """The members up to where the fewest bytes are still to be read, the last of equals.

    What followers read from elsewhere counts until its last reader has run: a sum or
    concatenation ends several tensors and begins one.
    """
    layers = graph.layers
    others = {s for layer in members for s in layers[layer].inputs if s >= 0} - set(members)
    best, fewest = 1, None
    for count, now in enumerate(members, 1):
        done = frozenset(members[:count])
        waiting = [
            layer for layer in done if not readers[layer] or not done.issuperset(readers[layer])
        ]
        waiting += [layer for layer in others if readers[layer][-1] > now]
        nbytes = sum(layers[layer].output_bytes for layer in waiting)
        if fewest is None or nbytes <= fewest:
            best, fewest = count, nbytes
    return members[:best]


def _acyclic(graph: ModelGraph, label: list[int]) -> Fused:
    while True:
        reads: dict[int, set[int]] = {name: set() for name in label}
        for layer, record in enumerate(graph.layers):
            sources = {label[source] for source in record.inputs if source >= 0}
            reads[label[layer]] |= sources - {label[layer]}
        try:
            order = list(TopologicalSorter(reads).static_order())
        except CycleError as error:
            # Single layers wait for nothing but what they read: this ends.
            cycle = set(error.args[1])
            label = [layer if name in cycle else name for layer, name in enumerate(label)]
            continue
        number = {name: index for index, name in enumerate(order)}
        group_of = tuple(number[name] for name in label)
        members: list[list[int]] = [[] for _ in order]
        for layer, index in enumerate(group_of):
            members[index].append(layer)
        return Fused(members=tuple(map(tuple, members)), group_of=group_of)
