"""Which of a model's cuts become boundaries of its bundle."""

from __future__ import annotations

from .errors import CaptureError
from .flops import is_heavy
from .graph import ModelGraph

DEFAULT_BOUNDARIES = 8
WIDER = 1.25  # a class token widens ViT's sequence by a 196th; that alone excludes nothing


def choose_cuts(
    graph: ModelGraph, most: int = DEFAULT_BOUNDARIES, excluded: frozenset[int] = frozenset()
) -> list[int]:
    """Indices into `graph.cuts` of at most `most` boundaries, in order, both ends among them.

    Between two convolutions or matrix products only the narrowest cut is a candidate, the last of
    equals: earlier ones would take apart what a runtime fuses. Then the compute is divided into
    equal parts, and from each the narrowest candidate is taken, the earliest of equals. Candidates
    much wider than one before them come last: they cost the device more work and the link more
    bytes.
    """
    if most < 2:
        raise CaptureError(f"{most} boundaries are too few", "ask for 2 (input and output) or more")
    done_flops, stretch = [0], [0]
    for layer in graph.layers:
        done_flops.append(done_flops[-1] + (layer.flops or 0))
        stretch.append(stretch[-1] + is_heavy(layer.op))
    last = len(graph.cuts) - 1
    narrowest: dict[int, int] = {}
    for i in range(1, last):
        key = stretch[graph.cuts[i].after + 1]
        best = narrowest.get(key)
        if (
            i not in excluded
            and key
            and (best is None or graph.cuts[i].nbytes <= graph.cuts[best].nbytes)
        ):
            narrowest[key] = i
    inner: list[int] = []
    for i in narrowest.values():
        least = min((graph.cuts[j].nbytes for j in inner), default=graph.cuts[i].nbytes)
        if graph.cuts[i].nbytes <= WIDER * least:
            inner.append(i)

    def width(i: int) -> tuple[int, int]:
        return graph.cuts[i].nbytes, i

    by_width = sorted(inner, key=width)
    parts, total = most - 2, max(done_flops[-1], 1)
    chosen: dict[int, int] = {}
    for i in by_width:
        part = min(done_flops[graph.cuts[i].after + 1] * parts // total, parts - 1)
        chosen.setdefault(part, i)
    picked = list(chosen.values())[:parts] if parts else []
    # Parts without a cut of their own leave room: fill it with the narrowest cuts that remain,
    # and only then with wide ones.
    for rest in (by_width, sorted(narrowest.values(), key=width)):
        picked += [i for i in rest if i not in picked][: parts - len(picked)]
    return [0, *sorted(picked), last]
