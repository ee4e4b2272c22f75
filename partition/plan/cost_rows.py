"""The candidates of one runtime: what each takes on either side, sends, and does to answers."""

from __future__ import annotations

import math

import numpy as np

from ..bundle.bundle import Manifest
from ..bundle.ladder import Judged
from ..bundle.segment_files import INT8
from ..energy.power_model import PowerModel
from ..energy.radio import Radio
from ..profile.cloud_times import CloudTimes
from ..profile.profile import Profile
from .plan import NO_CODEC

# Codecs that hardly ever change an answer; others are candidates only where that was calibrated.
LOSSLESS = frozenset(("raw", "png"))
TRUSTED = frozenset(("raw", "fp16", "q8", "png", "jpeg", "webp"))
MESSAGE_BYTES = 100  # what a message holds beside its payloads (benchmarks/overhead.py)

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


def candidate_rows(
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
        p95_bytes: float,
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
            "p95_bytes": max(p95_bytes, nbytes),
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

    rows = [row(count, NO_CODEC, 0.0, 0.0, 0.0, 0.0, _EXACT)]
    for found in profile.codecs:
        level = manifest.boundaries[found.boundary].level(found.codec)
        family = found.codec.partition("@")[0]
        if found.boundary < first or (level is None and family not in TRUSTED):
            continue
        if codecs is not None and not codecs & {found.codec, family}:
            continue
        # Photos from the device itself tell more than those of calibration; synthetic ones do not.
        sizes = found if level is None or found.pictures else level
        decode_ms = cloud.decode_ms.get((found.boundary, found.codec), found.decode_ms)
        rows.append(
            row(
                found.boundary,
                found.codec,
                sizes.nbytes + MESSAGE_BYTES,
                sizes.p95_bytes + MESSAGE_BYTES,
                found.encode_ms,
                decode_ms,
                _EXACT if found.codec in LOSSLESS else _seen(level),
            )
        )
    return rows
