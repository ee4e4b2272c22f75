"""Ranks every candidate split for a link and a load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..bundle.bundle import Manifest
from ..bundle.ladder import DEFAULT_LIMIT, inputs_needed, least_bound
from ..errors import PlanError
from .breakeven import Interval, intervals
from .costs import CostTable, Floats, Metrics
from .link import Link
from .objective import Constraints, Objective
from .online_planner import OnlinePlanner
from .plan import Plan
from .reasons import Reasons, infeasible

UPLINKS_MBPS, QUEUES_MS = (0.05, 10_000.0), (0.1, 60_000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One candidate under the conditions that were planned for.

    `stages_ms` add up to `latency_ms`; `uplink` holds what the two ends spend on a frame beyond
    computing, and half of the round trip, `downlink` the other half. `fps` is the rate of a stream
    whose stages overlap. `accuracy_drop` is the share of answers that codec and runtime changed in
    calibration, `drop_bound` what it may be at most, at 95 %; `worst_error` is how far off a value
    of an answer was there, relative to the largest. None stands for what is not known. `why` is the
    reason for its place, or what keeps it out; `broken` names the constraints it does not keep.
    """

    boundary: int
    codec: str
    runtime: str
    latency_ms: float
    p95_ms: float
    stages_ms: Mapping[str, float]
    energy_mj: float | None
    energy_kind: str
    bytes_up: int
    server_ms: float
    accuracy_drop: float | None
    drop_bound: float | None
    worst_error: float | None
    edge_mb: float | None
    fps: float
    feasible: bool
    broken: tuple[str, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        """The names are those of the fields."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The chosen plan, all candidates from the best to the worst, and where the choice changes.

    `uplinks` are intervals of Mbit/s at the planned round trip and load, `queues` intervals of
    milliseconds that a frame waits at the worker on the planned link. `notes` say what the plan
    could not consider.
    """

    chosen: Plan
    candidates: tuple[Prediction, ...]
    uplinks: tuple[Interval, ...]
    queues: tuple[Interval, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `splitpoint plan --json` prints."""
        return {
            "chosen": asdict(self.chosen),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "breakeven": {
                "uplink_mbps": [interval.to_json() for interval in self.uplinks],
                "server_queue_ms": [interval.to_json() for interval in self.queues],
            },
            "notes": list(self.notes),
        }


def make_plan(
    manifest: Manifest,
    table: CostTable,
    link: Link,
    *,
    objective: Objective,
    constraints: Constraints,
    queue_ms: float = 0.0,
    server_factor: float = 1.0,
) -> Report:
    """Ranks all candidates on `link`.

    A frame waits `queue_ms` at the worker, which is `server_factor` times slower than its profile.
    Raises `PlanError` when no candidate keeps to the constraints, saying which of them binds and
    what it would have to be.
    """
    if not (0 <= queue_ms < math.inf and 0 < server_factor < math.inf):
        raise PlanError(
            f"a queue of {queue_ms:g} ms at a worker {server_factor:g} times slower",
            "give finite numbers, the second above 0",
        )
    online = OnlinePlanner(table, manifest, objective, constraints)
    uploads = link.upload_ms(table.nbytes)
    upload_ms = np.asarray(np.median(uploads, 0))
    metrics = table.metrics(
        upload_ms,
        round_trip_ms=link.round_trip_ms,
        queue_ms=queue_ms,
        server_factor=server_factor,
    )
    late_ms = table.sends * (np.percentile(uploads, 95, 0) - upload_ms)
    late_ms = np.hypot(table.spread_ms, late_ms)
    p95_ms = metrics.latency_ms + late_ms
    excess = constraints.static_excess(table, manifest) | constraints.live_excess(metrics, p95_ms)
    scores = objective.scores(metrics)
    feasible = sum(excess.values(), np.zeros(len(table))) == 0
    if not feasible.any():
        raise infeasible(table, metrics, p95_ms, excess)
    order = np.lexsort((scores, ~feasible))
    stages = _stages(table, metrics, link.round_trip_ms, queue_ms)
    reasons = Reasons(table, metrics, stages, excess, int(order[0]))
    predictions = tuple(
        Prediction(
            boundary=int(table.boundary[i]),
            codec=table.codec[i],
            runtime=table.runtime[i],
            latency_ms=float(metrics.latency_ms[i]),
            p95_ms=float(p95_ms[i]),
            stages_ms={name: float(ms[i]) for name, ms in stages.items()},
            energy_mj=_known(metrics.energy_mj[i]),
            energy_kind="none" if math.isnan(metrics.energy_mj[i]) else table.energy_kind[i],
            bytes_up=round(float(table.nbytes[i])),
            server_ms=float(metrics.server_ms[i]),
            accuracy_drop=_known(table.accuracy_drop[i]),
            drop_bound=_known(table.drop_bound[i]),
            worst_error=_known(table.worst_error[i]),
            edge_mb=_known(table.edge_mb[i]),
            fps=float(1e3 / metrics.bottleneck_ms[i]),
            feasible=bool(feasible[i]),
            broken=reasons.broken(int(i)),
            why=reasons.why(int(i)),
        )
        for i in order
    )
    first = predictions[0]
    return Report(
        chosen=Plan(
            boundary=first.boundary, codec=first.codec, runtime=first.runtime, why=first.why
        ),
        candidates=predictions,
        uplinks=intervals(
            table,
            lambda mbps: online.decide(
                uplink_mbps=mbps,
                round_trip_ms=link.round_trip_ms,
                queue_ms=queue_ms,
                server_factor=server_factor,
            ),
            *UPLINKS_MBPS,
        ),
        queues=intervals(
            table,
            lambda ms: online.decide_for(upload_ms, late_ms, link.round_trip_ms, ms, server_factor),
            *QUEUES_MS,
        ),
        notes=_notes(table, manifest, constraints),
    )


def _stages(
    table: CostTable, metrics: Metrics, round_trip_ms: float, queue_ms: float
) -> dict[str, Floats]:
    """The latencies by stage; the uplink's is what the others leave, half of the round trip too."""
    stages = {
        "edge": table.edge_ms,
        "encode": table.encode_ms,
        "uplink": metrics.latency_ms,
        "queue": table.sends * queue_ms,
        "cloud": metrics.server_ms,
        "downlink": table.sends * (round_trip_ms / 2),
    }
    others = sum(ms for name, ms in stages.items() if name != "uplink")
    return stages | {"uplink": metrics.latency_ms - others}


def _notes(table: CostTable, manifest: Manifest, constraints: Constraints) -> tuple[str, ...]:
    """The default limit on errors; where calibration saw too little for another, what would do."""
    most = constraints.max_accuracy_drop
    if (
        most is None
        and manifest.boundaries[0].level("jpeg") is None
        and ((table.judged > 0) & ~np.isnan(table.worst_error)).any()
    ):
        return (DEFAULT_LIMIT,)
    if most is None or most <= 0:
        return ()
    judged = int(table.judged.max())
    if judged == 0:
        return (
            "no codec was calibrated, so none is known to keep to --max-accuracy-drop: compile the "
            "model with --calibrate DIR",
        )
    task = manifest.task.kind
    best = least_bound(judged, task)
    if best <= most:
        return ()
    needed = inputs_needed(most, task)
    return (
        f"calibration had {judged} inputs, too few for any lossy codec: even without a single "
        f"changed answer the drop may be {100 * best:.1f} %; {needed} inputs can show "
        f"{100 * most:g} %",
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
