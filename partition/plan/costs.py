"""What every candidate costs, as arrays: boundary x codec x runtime, the rivals among them.

Longer than others: one formula in many terms, which are read together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..bundle.bundle import Manifest
from ..bundle.ladder import Judged
from ..bundle.segment_files import INT8, check_runtime
from ..energy.power_model import PowerModel
from ..energy.radio import Radio
from ..errors import PlanError
from ..profile.cloud_times import CloudTimes
from ..profile.profile import Profile
from .plan import NO_CODEC

Floats = npt.NDArray[np.float64]

# Codecs that hardly ever change an answer; others are candidates only where that was calibrated.
LOSSLESS = frozenset(("raw", "png"))
TRUSTED = frozenset(("raw", "fp16", "q8", "png", "jpeg", "webp"))
# What a message holds beside its payloads, and what the two ends spend on a frame beyond computing
# and beyond the round trip of an empty message (benchmarks/overhead.py).
MESSAGE_BYTES, OWN_MS = 100, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The candidates under given conditions. Energy is NaN where it is not known.

    `bottleneck_ms` is the slowest of the stages that overlap in a stream: computing and encoding on
    the device, the link, the server.
    """

    latency_ms: Floats
    energy_mj: Floats
    bottleneck_ms: Floats
    server_ms: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """One entry a candidate; `sends` is 0 where everything runs on the device, else 1.

    `edge_ms` is compute alone. `server_ms` is decoding and compute. `spread_ms` is how far the
    95th percentile of computing lies above its median. `energy_mj` is what edge compute and
    encoding draw, `wait_w` the board's power while it waits, `radio_mj` the part of the radio's
    energy that goes with bytes and `radio_w` the part that goes with time; NaN where unknown.
    Calibration's figures are those of `Judged`: `accuracy_drop` and the upper end of its
    interval `drop_bound`, `loss`, how many inputs were `judged`, and `worst_error`; NaN and 0 where
    it measured nothing. `cores_ms` is how long a frame would keep all of the device's cores busy,
    0 where their number is not known.
    """

    boundary: npt.NDArray[np.int64]
    codec: tuple[str, ...]
    runtime: tuple[str, ...]
    sends: Floats
    edge_ms: Floats
    encode_ms: Floats
    nbytes: Floats
    server_ms: Floats
    spread_ms: Floats
    accuracy_drop: Floats
    drop_bound: Floats
    loss: Floats
    judged: Floats
    worst_error: Floats
    edge_mb: Floats
    energy_mj: Floats
    wait_w: Floats
    radio_mj: Floats
    radio_w: float
    energy_kind: tuple[str, ...]
    cores_ms: Floats

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.codec)

    @property
    def device_ms(self) -> Floats:
        """What the device takes for each frame of a stream, `[n]`.

        It encodes a frame while it computes the next, in another thread. Both need cores: where
        computing keeps all of them busy, encoding makes it later by its share of them.
        """
        return np.maximum(np.maximum(self.edge_ms, self.encode_ms), self.cores_ms)

    def metrics(
        self,
        upload_ms: Floats,
        *,
        round_trip_ms: float,
        queue_ms: Floats | float,
        server_factor: float,
        edge_factor: float = 1.0,
    ) -> Metrics:
        """What each candidate costs when pushing its bytes takes `upload_ms`, `[n]`.

        `queue_ms` is how long a frame waits at the worker, the same for all or `[n]`. The worker's
        own times are multiplied by `server_factor`, the device's by `edge_factor`. Energy is what
        the board draws from the frame's start to its end, the radio included, without its tail.
        """
        server_ms = self.server_ms * server_factor
        away_ms = self.sends * (upload_ms + (round_trip_ms + queue_ms + OWN_MS)) + server_ms
        edge_ms = (self.edge_ms + self.encode_ms) * edge_factor
        return Metrics(
            latency_ms=edge_ms + away_ms,
            energy_mj=self.energy_mj * edge_factor
            + self.wait_w * away_ms
            + self.radio_mj
            + self.radio_w * self.sends * upload_ms,
            bottleneck_ms=np.maximum(
                self.device_ms * edge_factor, np.maximum(self.sends * upload_ms, server_ms)
            ),
            server_ms=server_ms,
        )


def cost_table(
    manifest: Manifest,
    edges: Sequence[Profile],
    cloud: CloudTimes,
    *,
    radio: Radio,
    power: PowerModel | None = None,
    codecs: frozenset[str] | None = None,
) -> CostTable:
    """The table of all candidates: each edge profile is a runtime, `codecs` limits the codecs.

    In INT8 a candidate's drop and loss are those of the runtime and the codec together.

    `power` stands in where a profile has no energy. Raises `PlanError` for profiles that do not
    fit the bundle or lack what a plan needs.
    """
    count = len(manifest.segments)
    if len(cloud.segment_ms) != count:
        raise PlanError(
            f"the worker has times of {len(cloud.segment_ms)} segments, the bundle {count}"
        )
    if len(cloud.segment_p95_ms) not in (0, count):
        raise PlanError(
            f"the worker has {len(cloud.segment_p95_ms)} times for the 95th percentile of "
            f"{count} segments"
        )
    rows = []
    for profile in edges:
        if len(profile.segments) != count:
            raise PlanError(
                f"the profile of {profile.device} has {len(profile.segments)} segments, "
                f"the bundle {count}",
                "measure again with `splitpoint profile`",
            )
        if not profile.codecs:
            raise PlanError(
                f"the profile of {profile.device} has no codecs",
                "measure again with `splitpoint profile`",
            )
        check_runtime(manifest, profile.runtime)
        # Where the input is sent, no segment runs: that is one candidate, whatever the runtime.
        first = 1 if profile.runtime == INT8 and len(edges) > 1 else 0
        rows += _rows(manifest, profile, cloud, radio, power, codecs, first)
    columns = {
        name: np.array([row[name] for row in rows], np.float64)
        for name in (
            "sends", "edge_ms", "encode_ms", "nbytes", "server_ms", "spread_ms", "accuracy_drop",
            "drop_bound", "loss", "judged", "worst_error", "edge_mb", "energy_mj", "wait_w",
            "radio_mj", "cores_ms",
        )
    }  # fmt: skip
    return CostTable(
        boundary=np.array([row["boundary"] for row in rows], np.int64),
        codec=tuple(str(row["codec"]) for row in rows),
        runtime=tuple(str(row["runtime"]) for row in rows),
        radio_w=radio.base_mw / 1e3,
        energy_kind=tuple(str(row["energy_kind"]) for row in rows),
        **columns,
    )


Seen = tuple[float, float, float, float, float]
"""Drop, its bound, loss, inputs judged, and the worst error."""

_EXACT = (0.0, 0.0, 0.0, math.inf, 0.0)  # no answer changes, however many are judged


def _seen(level: Judged | None) -> Seen:
    if level is None:
        return (math.nan, math.nan, math.nan, 0.0, math.nan)
    interval = level.drop_interval
    drop, bound = (math.nan, math.nan) if interval is None else (level.drop or 0.0, interval[1])
    error = math.nan if level.worst_error is None else level.worst_error
    return (drop, bound, level.loss, float(level.judged), error)


def _together(runtime: Seen, codec: Seen) -> Seen:
    """What a codec does to what a runtime left: at most the sum of both, which is taken for it.

    The two were judged apart. A sum of drops counts twice what both would change; losses are small,
    and errors of two independent sources add up in the mean. Of what was never judged only loss and
    error, which then are the other's alone, can be said.
    """
    drop, bound = (float(np.minimum(a + b, 1)) for a, b in zip(runtime[:2], codec[:2], strict=True))
    known = [seen for seen in (runtime, codec) if not math.isnan(seen[2])]
    loss, error = (sum(seen[i] for seen in known) if known else math.nan for i in (2, 4))
    return (drop, bound, loss, min(runtime[3], codec[3]), error)


def _rows(
    manifest: Manifest,
    profile: Profile,
    cloud: CloudTimes,
    radio: Radio,
    power: PowerModel | None,
    codecs: frozenset[str] | None,
    first: int,
) -> list[dict[str, float | str]]:
    """The candidates of one runtime: all on the device, then from boundary `first` every codec."""
    segments = profile.segments
    count = len(segments)
    ms = np.array([s.ms for s in segments])
    spread = np.array([s.p95_ms - s.ms for s in segments])
    cloud_ms = np.array(cloud.segment_ms)
    cloud_spread = np.array(cloud.segment_p95_ms or cloud.segment_ms) - cloud_ms
    memory = np.array([np.nan if s.memory_mb is None else s.memory_mb for s in segments])
    base_mb = np.nan if profile.base_mb is None else profile.base_mb
    busy_w, idle_w = profile.busy_w, profile.idle_w
    kind = profile.energy_kind
    if kind == "none" and power is not None:
        kind, busy_w, idle_w = power.kind, power.busy_w, power.idle_w
        segment_mj = busy_w * ms
    else:
        segment_mj = np.array([np.nan if s.mj is None else s.mj for s in segments])

    def row(
        boundary: int,
        codec: str,
        nbytes: float,
        encode: float,
        decode: float,
        seen: Seen,
    ) -> dict[str, float | str]:
        sends = boundary < count
        if profile.runtime == INT8 and boundary:
            seen = _together(_seen(manifest.boundaries[boundary].int8), seen)
        drop, bound, loss, judged, error = seen
        # Encoding is the work of one thread.
        cores_ms = 0.0
        if profile.cores is not None:
            threads = min(profile.threads, profile.cores)
            cores_ms = (threads * ms[:boundary].sum() + encode) / profile.cores
        variance = (spread[:boundary] ** 2).sum() + (cloud_spread[boundary:] ** 2).sum()
        return {
            "boundary": boundary,
            "codec": codec,
            "runtime": profile.runtime,
            "sends": float(sends),
            "edge_ms": ms[:boundary].sum(),
            "encode_ms": encode,
            "cores_ms": cores_ms,
            "nbytes": nbytes,
            "server_ms": decode + cloud_ms[boundary:].sum(),
            "spread_ms": float(np.sqrt(variance)),
            "accuracy_drop": drop,
            "drop_bound": bound,
            "loss": loss,
            "judged": judged if math.isfinite(judged) else 0.0,
            "worst_error": error,
            "edge_mb": base_mb + memory[:boundary].sum(),
            "energy_mj": segment_mj[:boundary].sum() + (busy_w or np.nan) * encode
            if encode
            else segment_mj[:boundary].sum(),
            "wait_w": (np.nan if idle_w is None else idle_w) if sends else 0.0,
            # mW per Mbit/s is mJ per Mbit.
            "radio_mj": radio.up_mw_per_mbps * 8e-6 * nbytes,
            "energy_kind": "modelled" if sends and kind == "measured" else kind,
        }

    rows = [row(count, NO_CODEC, 0.0, 0.0, 0.0, _EXACT)]
    for found in profile.codecs:
        level = manifest.boundaries[found.boundary].level(found.codec)
        family = found.codec.partition("@")[0]
        if found.boundary < first or (level is None and family not in TRUSTED):
            continue
        if codecs is not None and not codecs & {found.codec, family}:
            continue
        # Photos from the device itself tell more than those of calibration; synthetic ones do not.
        nbytes = found.nbytes if level is None or found.pictures else level.nbytes
        decode_ms = cloud.decode_ms.get((found.boundary, found.codec), found.decode_ms)
        rows.append(
            row(
                found.boundary,
                found.codec,
                nbytes + MESSAGE_BYTES,
                found.encode_ms,
                decode_ms,
                _EXACT if found.codec in LOSSLESS else _seen(level),
            )
        )
    return rows
