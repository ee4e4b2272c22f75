"""Which of a model's cuts become boundaries of its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

import numpy as np

from ..bundle.flops import is_heavy
from ..bundle.graph import ModelGraph
from ..errors import CaptureError
from .fusion import fuse
from .scenarios import Weighed, weigh_cuts

DEFAULT_BOUNDARIES = 8
WIDER = 1.25  # a class token widens ViT's sequence by a 196th; that alone excludes nothing
LEAST_GAIN = 1e-3  # of the mean regret: the modelled times mean nothing finer
LEAST_PART = 0.01  # of the compute: a cut with less on one side is an end by another name


def choose_cuts(
    graph: ModelGraph, most: int = DEFAULT_BOUNDARIES, excluded: frozenset[int] = frozenset()
) -> list[int]:
    """Indices into `graph.cuts` of at most `most` boundaries, in order, both ends among them.

    Between two convolutions or matrix products only the narrowest cut is a candidate: others would
    take apart what a runtime fuses. Of the candidates, one after the other is taken that lowers
    the mean regret most: how much slower the best boundary is than the best split of the graph,
    over the modelled scenarios of `scenarios.py`. Where none lowers it noticeably, the room that
    is left is filled so that compute is divided evenly (`_fill`): more boundaries let a cloud
    batch and a device take over in more places. Raises `CaptureError` if `most` is less than 2.
    """
    if most < 2:
        raise CaptureError(f"{most} boundaries are too few", "ask for 2 (input and output) or more")
    last = len(graph.cuts) - 1
    candidates = _candidates(graph, excluded)
    room = most - 2
    if not candidates or not room:
        return [0, last]
    picked = _lowest_regret(_weighed(graph), candidates, room, (0, last))
    return [0, *sorted(_fill(graph, candidates, picked, room)), last]


def cuts_after(graph: ModelGraph, layers: Sequence[str], excluded: frozenset[int]) -> list[int]:
    """Indices into `graph.cuts` of those right after the named layers, and of both ends.

    Raises `CaptureError` for a layer that there is not, or after which the model cannot be cut.
    """
    names = [layer.name for layer in graph.layers]
    places = {names[cut.after]: index for index, cut in enumerate(graph.cuts) if cut.after >= 0}
    found = {0, len(graph.cuts) - 1}
    for name in layers:
        index = places.get(name)
        if index is None:
            near = get_close_matches(name, places, n=3)
            raise CaptureError(
                f"the model {'cannot be cut after' if name in names else 'has no'} layer {name}",
                f"near it: {', '.join(near)}"
                if near
                else "see `splitpoint inspect` for its layers",
            )
        if index in excluded:
            raise CaptureError(
                f"after layer {name} the samples of a batch cannot be told apart",
                "cut after another layer",
            )
        found.add(index)
    return sorted(found)


@lru_cache(maxsize=1)
def _weighed(graph: ModelGraph) -> Weighed:
    """Kept for the next call, which excludes more of the same model's cuts."""
    return weigh_cuts(graph, _candidates(graph, frozenset()))


def _candidates(graph: ModelGraph, excluded: frozenset[int]) -> list[int]:
    """The narrowest cut after each heavy layer and before the next, none before the first.

    Of equals, those of the fewest tensors (one before a split, not its parts behind it), of those
    one that takes no fused group apart, and of those the last.
    """
    stretch = [0]
    for layer in graph.layers:
        stretch.append(stretch[-1] + is_heavy(layer.op))
    ends = [(members[0], members[-1]) for members in fuse(graph).members]
    best: dict[int, tuple[int, int, int, int]] = {}
    for index, cut in list(enumerate(graph.cuts))[1:-1]:
        key = stretch[cut.after + 1]
        if key and index not in excluded:
            torn = sum(first <= cut.after < end for first, end in ends)
            rank = (cut.nbytes, len(cut.tensors), torn, -index)
            best[key] = min(best.get(key, rank), rank)
    return [-rank[-1] for rank in best.values()]


def _lowest_regret(
    weighed: Weighed, candidates: Sequence[int], room: int, given: Sequence[int]
) -> list[int]:
    """At most `room` of the candidates, greedily; fewer when no other helps noticeably."""
    regret, weight = weighed
    least = regret[:, given].min(1)
    picked: list[int] = []
    while len(picked) < room:
        means = weight @ np.minimum(regret[:, candidates], least[:, None])
        if weight @ least - means.min() <= LEAST_GAIN:
            break
        picked.append(candidates[int(means.argmin())])
        least = np.minimum(least, regret[:, picked[-1]])
    return picked


def _fill(
    graph: ModelGraph, candidates: Sequence[int], picked: Sequence[int], room: int
) -> list[int]:
    """`picked` and what makes them `room`, as far as there are candidates.

    The compute is divided into equal parts, and each part that has none yet gives its narrowest
    cut. Cuts with next to no compute on one side come last, as do those much wider than one
    before them: they cost the device more work and the link more bytes.
    """
    done_flops = [0]
    for layer in graph.layers:
        done_flops.append(done_flops[-1] + (layer.flops or 0))
    total = max(done_flops[-1], 1)

    def share(index: int) -> float:
        return done_flops[graph.cuts[index].after + 1] / total

    def part(index: int) -> int:
        return min(int(share(index) * room), room - 1)

    def width(index: int) -> tuple[int, int]:
        return graph.cuts[index].nbytes, index

    narrow: list[int] = []
    for index in candidates:
        least = min((graph.cuts[i].nbytes for i in narrow), default=graph.cuts[index].nbytes)
        divides = LEAST_PART <= share(index) <= 1 - LEAST_PART
        if divides and graph.cuts[index].nbytes <= WIDER * least:
            narrow.append(index)
    by_width = sorted(narrow, key=width)
    chosen = list(picked)
    served = {part(index) for index in chosen}
    for index in by_width:
        if len(chosen) < room and part(index) not in served:
            served.add(part(index))
            chosen.append(index)
    for rest in (by_width, sorted(candidates, key=width)):
        chosen += [i for i in rest if i not in chosen][: room - len(chosen)]
    return chosen
