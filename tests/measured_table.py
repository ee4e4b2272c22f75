"""What EfficientNet-Lite0 costs, as profiled on one core of an x86 server (AMD EPYC)."""

from __future__ import annotations

import numpy as np
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.profile.cloud_times import CloudTimes

SEGMENTS_MS = (1.02, 0.89, 1.42, 0.86, 3.03, 1.56, 1.38)
# Boundary, codec, milliseconds of encoding, bytes.
CODECS = (
    (0, "jpeg", 0.41, 18875),
    (2, "q4", 0.25, 29711),
    (3, "q4", 0.18, 13423),
    (4, "q4", 0.14, 7766),
    (4, "q8", 0.18, 15848),
    (5, "q4", 0.16, 6125),
    (6, "q4", 0.13, 6134),
)
# The transform codec's figures, under names of codecs that need no calibration.
STAND_INS = ((2, "fp16", 3.31, 14847), (3, "fp16", 1.52, 4322), (4, "fp16", 0.97, 2018),
             (5, "fp16", 0.90, 1154))  # fmt: skip


def measured_table(slowdown: float = 1.0) -> CostTable:
    """On a device so many times slower."""
    codecs = [
        codec_time(boundary, codec, nbytes, encode_ms=slowdown * ms)
        for boundary, codec, ms, nbytes in (*CODECS, *STAND_INS)
    ]
    return cost_table(
        manifest_of(len(SEGMENTS_MS)),
        [profile_of([slowdown * ms for ms in SEGMENTS_MS], codecs)],
        CloudTimes(segment_ms=tuple(1.0 for _ in SEGMENTS_MS)),
        radio=RADIOS["wifi"],
    )


def all_allowed(table: CostTable) -> np.ndarray:
    return np.ones(len(table), bool)
