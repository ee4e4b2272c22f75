"""Chooses cuts at which the samples of a batch are apart, since the server batches there."""

from __future__ import annotations

from collections.abc import Sequence

from ..capture.capture import CapturedModel
from ..cuts.choose import choose_cuts, cuts_after
from ..errors import CaptureError
from ..model_spec import ModelSpec
from .verify import inseparable_cuts


def separable_cuts(
    model: CapturedModel, spec: ModelSpec, most: int, after: Sequence[str]
) -> list[int]:
    """The chosen cuts, without those at which the samples of a batch cannot be told apart.

    At most so many, unless the layers that they lie `after` are given. Raises `CaptureError` for a
    model that mixes the samples, naming the layer from which on it does.
    """
    excluded: set[int] = set()
    while True:
        without = frozenset(excluded)
        chosen = (
            cuts_after(model.graph, after, without)
            if after
            else choose_cuts(model.graph, most, without)
        )
        bad = inseparable_cuts(model, chosen, spec)
        if not bad:
            return chosen
        if bad & {chosen[0], chosen[-1]}:
            raise CaptureError(
                f"the model mixes the samples of a batch{_since(model, spec)}",
                "splitpoint batches requests of several devices and needs independent samples",
            )
        excluded |= bad


def _since(model: CapturedModel, spec: ModelSpec) -> str:
    """Where samples are mixed: the layer after which no cut has them apart any more."""
    cuts = model.graph.cuts
    bad = inseparable_cuts(model, range(len(cuts)), spec)
    last_good = max((index for index in range(len(cuts)) if index not in bad), default=-1)
    if last_good + 1 == len(cuts):
        return ""
    layer = model.graph.layers[cuts[last_good + 1].after]
    return f", from layer {layer.name!r} ({layer.op}) on"
