"""What the sanitizers' and the fuzzer's programs are given: tables, plans, and sound inputs.

The programs are plain C, so that no Python runs under a sanitizer; `read_case` in one_input.c reads
what `write_cases` writes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fkt_tables import coder_of, like_calibration, spec_of, table_of
from splitpoint.codec import Array, CodecError, TensorSpec
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.loops import RINGS
from splitpoint.codec.fkt.rans import least_lanes

MAGIC = 0x31504653
INTRA, DIFFERENCE, AFFINE, TENSOR, PLAN = range(5)
MAP, TOKENS, VECTOR = spec_of((1, 6, 4, 4)), spec_of((1, 17, 6)), spec_of((1, 24))
CLIP, WINDOWS, LARGE = spec_of((1, 4, 3, 5, 5)), spec_of((8, 9, 4)), spec_of((1, 16, 12, 12))
LEVELS = ((MAP, 1), (MAP, 8), (TOKENS, 3), (VECTOR, 5), (CLIP, 4), (WINDOWS, 2), (LARGE, 3),
          (LARGE, 9))  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Its file, and the sound inputs in it, each after its kind."""

    path: Path
    seeds: list[bytes]


def write_cases(folder: Path) -> list[Case]:
    """A file for each of `LEVELS`."""
    found = []
    for number, (spec, level) in enumerate(LEVELS):
        head, seeds = _case(spec, min(level, table_of(spec).levels))
        path = folder / f"{number}.case"
        path.write_bytes(head + b"".join(struct.pack("<I", len(seed)) + seed for seed in seeds))
        found.append(Case(path, seeds))
    return found


def _case(spec: TensorSpec, level: int) -> tuple[bytes, list[bytes]]:
    """What comes before the inputs, and those."""
    coder = coder_of(spec, level)
    table, order, plan = coder.table, coder.level.order, coder.plan
    classes, n = len(table.frequencies), len(order)
    unsent = np.setdiff1d(np.arange(coder.size), order)
    # Any ring will do: those of VideoState follow from frequencies.
    ring = (np.arange(n) * RINGS // n).astype(np.uint8)
    kept = coder.fine(_magnitudes(coder, spec, 30_000), coder.level.classes)
    seeds = _seeds(coder, spec, ring, kept)
    arrays = (
        plan.model.shares.astype("<u4"), table.offsets, table.thresholds.astype("<f4"),
        plan.model.mostly_zero, plan.classes, plan.single.astype("<i4"), plan.sparse.astype("<i4"),
        plan.first.astype(np.uint8), order.astype("<i4"), unsent.astype("<i4"), ring,
        kept.astype("<i8"),
    )  # fmt: skip
    head = struct.pack(
        "<9I", MAGIC, classes, n, len(plan.single), len(plan.sparse), coder.size, least_lanes(n),
        coder.level.lanes, len(seeds),
    )  # fmt: skip
    return head + b"".join(array.tobytes() for array in arrays), seeds


def _magnitudes(coder: CoefficientCoder, spec: TensorSpec, seed: int) -> Array:
    (banded,) = coder.banded(like_calibration(spec, 1, seed))
    return coder.quantise(coder.sent(banded), coder.level.classes)


def _samples(coder: CoefficientCoder, spec: TensorSpec) -> list[bytes]:
    """Usual ones, and some of zeros, with outliers, and of large values."""
    arrays = [like_calibration(spec, 1, 20_000 + i) for i in range(3)]
    arrays.append(np.zeros(spec.shape_at(1), np.float32))
    for scale in (5.0, 40.0):
        spiked = like_calibration(spec, 1, 21_000)
        spiked.flat[3] = 7 * scale
        arrays += [spiked, like_calibration(spec, 1, 22_000) * np.float32(scale)]
    found = []
    for array in arrays:
        try:
            found.append(coder.write_intra(coder.banded(array)[0]))
        except CodecError:
            continue
    return found


def _seeds(coder: CoefficientCoder, spec: TensorSpec, ring: Array, kept: Array) -> list[bytes]:
    """Sound inputs, each after its kind."""
    samples, rng = _samples(coder, spec), np.random.default_rng(3)
    found = [bytes([INTRA]) + sample for sample in samples]
    loops, level = coder.table.loops, coder.level
    for seed in range(3):
        rings = rng.integers(0, 40, RINGS).astype(np.uint8)
        base, classes = loops.expected(kept, ring, level.classes, rings)
        (banded,) = coder.banded(like_calibration(spec, 1, 30_000 + seed))
        left = coder.sent(banded) - base.astype(np.float32) / 64
        body = coder.write(
            coder.quantise(left, classes), loops.plan(classes, coder.table.model), level.lanes,
            coder.outliers(banded),
        )  # fmt: skip
        found.append(bytes([DIFFERENCE]) + rings.tobytes() + body)
    for rows, values in ((1, 31), (6, 16), (15, 9)):
        ranges = rng.normal(0, 1, 2 * rows).astype("<f4")
        found.append(bytes([AFFINE, rows, values]) + ranges.tobytes() + rng.bytes(rows * values))
    for scale in (0.1, 3.0):
        floats = rng.normal(0, scale, 40).astype("<f4")
        found.append(bytes([TENSOR]) + floats.tobytes())
    for sample in samples[:2]:
        found.append(bytes([PLAN, 2]) + rng.bytes(14) + sample)
    return found
