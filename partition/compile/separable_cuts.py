"""Chooses cuts at which the samples of a batch are apart, since the server batches there."""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle.graph import Layer
from ..capture.capture import CapturedModel
from ..cuts.choose import choose_cuts, cuts_after
from ..errors import CaptureError
from ..model_spec import ModelSpec
from .verify import inseparable_cuts

# Whose results change as a whole where two values nearly equal each other.
_CHOICES = frozenset(("argmax", "argmin", "argsort", "sort", "topk"))


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
            raise _mixed(_since(model, spec))
        excluded |= bad


def _mixed(since: Layer | None) -> CaptureError:
    """The error of a model whose samples are not apart at its end, `since` a layer."""
    where = "" if since is None else f", from layer {since.name!r} ({since.op}) on"
    if since is not None and since.op in _CHOICES:
        return CaptureError(
            "a batch is not answered as its samples are"
            f"{where}: it chooses by values that rounding may turn over",
            "return what it chooses from, and choose afterwards",
        )
    return CaptureError(
        f"the model mixes the samples of a batch{where}",
        "splitpoint batches requests of several devices and needs independent samples",
    )


def _since(model: CapturedModel, spec: ModelSpec) -> Layer | None:
    """Where samples are mixed: the layer after which no cut has them apart any more."""
    cuts = model.graph.cuts
    bad = inseparable_cuts(model, range(len(cuts)), spec)
    last_good = max((index for index in range(len(cuts)) if index not in bad), default=-1)
    if last_good + 1 == len(cuts):
        return None
    return model.graph.layers[cuts[last_good + 1].after]
