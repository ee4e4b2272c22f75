"""What a plan is to be best at, and what it must keep to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..bundle.bundle import Manifest
from ..bundle.ladder import DEFAULT_ERROR, usual_loss
from ..errors import PlanError
from .costs import CostTable, Floats, Metrics

OBJECTIVES = ("latency", "energy", "bytes", "throughput", "server-cost")


@dataclass(frozen=True, slots=True)
class Objective:
    """One aim, or several with weights, each relative to the median of its candidates."""

    weights: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Objective:
        """`latency`, or a mix like `latency=2,energy=1`; `PlanError` for anything else."""
        weights: dict[str, float] = {}
        for part in text.replace(" ", "").split(","):
            name, _, weight = part.partition("=")
            try:
                weights[name] = float(weight or 1)
            except ValueError:
                weights[name] = math.nan
        bad = [n for n, w in weights.items() if n not in OBJECTIVES or not 0 < w < math.inf]
        if bad:
            raise PlanError(
                f"unknown objective {text!r}",
                f"use {', '.join(OBJECTIVES)}, or a mix like latency=2,energy=1",
            )
        return cls(weights)

    def check(self, table: CostTable) -> None:
        """Raises `PlanError` when the table lacks what is aimed at."""
        if "energy" in self.weights and np.isnan(table.energy_mj + table.wait_w).any():
            raise PlanError(
                "the energy of the device is not known",
                "measure it with `splitpoint profile --energy auto`, or model it with "
                "--power-model pi5",
            )

    def scores(self, metrics: Metrics) -> Floats:
        """The lower the better, `[n]`; equal scores are told apart by latency."""
        values = {
            "latency": metrics.latency_ms,
            "energy": metrics.energy_mj,
            "bytes": metrics.nbytes,
            "throughput": metrics.bottleneck_ms,
            "server-cost": metrics.server_ms,
        }
        if len(self.weights) == 1:
            score = values[next(iter(self.weights))]
        else:
            score = np.sum(
                [w * values[n] / (_median(values[n]) or 1.0) for n, w in self.weights.items()],
                axis=0,
            )
        return np.asarray(score + 1e-9 * metrics.latency_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits on a plan; None and empty mean no limit. The deadline is for the 95th percentile.

    `max_accuracy_drop` is a share (0.01 is 1 %), for the upper bound of what calibration saw.
    Raises `PlanError` for limits that nothing can keep to.
    """

    deadline_ms: float | None = None
    max_accuracy_drop: float | None = None
    max_edge_mb: float | None = None
    max_kb_per_frame: float | None = None
    min_fps: float | None = None
    must_run_on_edge: tuple[str, ...] = field(default=())
    must_not_upload_input: bool = False

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "max_edge_mb", "max_kb_per_frame", "min_fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise PlanError(f"{_flag(name)} {value:g} is no limit", "give a number above 0")
        drop = self.max_accuracy_drop
        if drop is not None and not 0 <= drop <= 1:
            raise PlanError(f"--max-accuracy-drop {100 * drop:g} is none", "give 0 to 100 (%)")

    def first_boundary(self, manifest: Manifest) -> int:
        """The least boundary at which every layer that must run on the device does."""
        first = 1 if self.must_not_upload_input else 0
        segments = {layer.name: layer.segment for layer in manifest.layers}
        for name in self.must_run_on_edge:
            if name not in segments:
                near = [layer for layer in segments if name.lower() in layer.lower()][:5]
                raise PlanError(
                    f"{manifest.name} has no layer {name!r}",
                    f"did you mean {', '.join(near)}?" if near else "see `splitpoint inspect`",
                )
            first = max(first, segments[name] + 1)
        return first

    def check_named(self, boundary: int, manifest: Manifest) -> None:
        """Raises `PlanError` where a cut that somebody names would upload what must stay."""
        first = self.first_boundary(manifest)
        if boundary < first:
            raise PlanError(
                f"a split at boundary {boundary} breaks {self._stays_flag}",
                f"split at {first} or later, or leave that limit out",
            )

    @property
    def _stays_flag(self) -> str:
        return "--must-run-on-edge" if self.must_run_on_edge else "--must-not-upload-input"

    def static_excess(self, table: CostTable, manifest: Manifest) -> dict[str, Floats]:
        """Constraint -> by how much each candidate exceeds it, relative, whatever the link is."""
        found = {"--max-accuracy-drop": self._accuracy(table, manifest)}
        if self.max_edge_mb is not None:
            found["--max-edge-mb"] = _over(table.edge_mb, self.max_edge_mb)
        if self.max_kb_per_frame is not None:
            found["--max-kb-per-frame"] = _over(table.nbytes / 1e3, self.max_kb_per_frame)
        first = self.first_boundary(manifest)
        if first:
            found[self._stays_flag] = np.maximum(first - table.boundary, 0).astype(np.float64)
        return found

    def live_breaks(self, metrics: Metrics, p95_ms: Floats) -> list[npt.NDArray[np.bool_]]:
        """Which candidates break the constraints that depend on the link and the worker."""
        found = []
        if self.deadline_ms is not None:
            found.append(p95_ms > self.deadline_ms)
        if self.min_fps is not None:
            found.append(metrics.bottleneck_ms > 1e3 / self.min_fps)
        return found

    def live_excess(self, metrics: Metrics, p95_ms: Floats) -> dict[str, Floats]:
        """The same for the constraints that depend on the link and the worker."""
        found = {}
        if self.deadline_ms is not None:
            found["--deadline-ms"] = _over(p95_ms, self.deadline_ms)
        if self.min_fps is not None:
            found["--min-fps"] = _over(metrics.bottleneck_ms, 1e3 / self.min_fps)
        return found

    def _accuracy(self, table: CostTable, manifest: Manifest) -> Floats:
        if self.max_accuracy_drop is not None:  # what is not known is not known to be kept
            over = np.nan_to_num(table.drop_bound, nan=1.0) - self.max_accuracy_drop
            return np.asarray(np.maximum(over, 0.0))
        # Without a limit of the user's, a codec may lose as much as the JPEG that it replaces, and
        # where there is none, or what it loses was never measured, as `relative_loss` says.
        jpeg = manifest.boundaries[0].level("jpeg")
        share = table.loss / usual_loss(jpeg)
        if jpeg is None:
            share = np.where(np.isnan(table.worst_error), share, table.worst_error / DEFAULT_ERROR)
        return np.asarray(np.maximum(np.nan_to_num(share) - 1, 0.0))


def _median(values: Floats) -> float:
    """The upper median; numpy's own takes longer than everything else in a decision."""
    return float(np.sort(values)[len(values) // 2])


def _over(values: Floats, most: float) -> Floats:
    """By which share of `most` the values exceed it; what is not known exceeds it twice over."""
    return np.asarray(np.maximum(np.nan_to_num(values, nan=2 * most) / most - 1, 0.0))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
