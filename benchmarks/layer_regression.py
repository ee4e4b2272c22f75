"""A rival predictor for planner_regret.py: layer times by regression, as in Neurosurgeon.

Kang et al., "Neurosurgeon", ASPLOS 2017: a linear model of a layer's time for each kind of layer,
on what can be read off its configuration. Here: FLOPs, bytes of activations, bytes of parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.flops import is_heavy
from splitpoint.partition.bundle.graph import Layer
from splitpoint.partition.profile.profile import Profile

LEAST_EXAMPLES = 8


class Profiled(Protocol):
    bundle: Bundle
    edge: Profile
    cloud: Profile


def kind_of(layer: Layer) -> str:
    return layer.op if is_heavy(layer.op) else "other"


def features(layer: Layer, layers: Sequence[Layer]) -> list[float]:
    read = sum(layers[i].output_bytes for i in layer.inputs if i >= 0)
    return [
        1.0,
        (layer.flops or 0) / 1e6,
        (read + layer.output_bytes) / 1e6,
        layer.param_bytes / 1e6,
    ]


class LayerRegression:
    """Fits on the profiles of some models, predicts the segments of another."""

    def __init__(self, subjects: Iterable[Profiled]) -> None:
        self._fits: dict[str, dict[str, np.ndarray]] = {}
        known = list(subjects)
        for side in ("edge", "cloud"):
            x: dict[str, list[list[float]]] = defaultdict(list)
            y: dict[str, list[float]] = defaultdict(list)
            for subject in known:
                layers = subject.bundle.manifest.layers
                profile: Profile = getattr(subject, side)
                for layer, time in zip(layers, profile.layers, strict=True):
                    for kind in {kind_of(layer), "any"}:
                        x[kind].append(features(layer, layers))
                        y[kind].append(time.ms)
            self._fits[side] = {
                kind: np.linalg.lstsq(np.array(rows), np.array(y[kind]), rcond=None)[0]
                for kind, rows in x.items()
                if len(rows) >= LEAST_EXAMPLES
            }

    def segment_ms(self, subject: Profiled, side: str) -> np.ndarray:
        """Predicted milliseconds of each segment; kinds never seen use the fit of all layers."""
        layers = subject.bundle.manifest.layers
        fits, result = self._fits[side], np.zeros(len(subject.bundle.manifest.segments))
        for layer in layers:
            fit = fits.get(kind_of(layer), fits["any"])
            result[layer.segment] += max(float(np.dot(fit, features(layer, layers))), 0.0)
        return result

    def change_ms(self, subject: Profiled, boundary: int, slowdown: float) -> float:
        """What a prediction of latency changes by with these segment times in place of measured."""
        change = 0.0
        for side, part, factor in (
            ("edge", slice(None, boundary), slowdown),
            ("cloud", slice(boundary, None), 1.0),
        ):
            measured = np.array([segment.ms for segment in getattr(subject, side).segments])
            difference = self.segment_ms(subject, side) - measured
            change += factor * float(difference[part].sum())
        return change
