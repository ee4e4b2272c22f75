"""Gives tables and tensors to both forms of the codecs' inner loops; run on x86 and on Arm.

    loops.py MADE.npz OUT.npz

MADE has for each case `CASE/table/ARRAY`, `CASE/spec`, `CASE/level`, `CASE/banded` (coefficients,
float32 `[samples, C x P]`) and `CASE/rows` (float32 `[channels, values]`). OUT has for each of them
`CASE/FORM/WHAT`: whatever the loops return, payloads as uint8.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.loops import RINGS, Loops, TooLarge
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.symbol_plan import SymbolPlan
from splitpoint.codec.fkt.table import FktTable, Level
from splitpoint.codec.native import EXTENSION, why_not
from splitpoint.codec.simple.affine_loops import (
    AffineLoops,
    NativeAffineLoops,
    NumpyAffineLoops,
)


def of_sample(
    loops: Loops, table: FktTable, level: Level, plan: SymbolPlan, values: Array
) -> dict[str, Array]:
    """One sample as it is, and as what changed since half of it; `TooLarge`."""
    ring = (np.arange(len(level.order)) * RINGS // len(level.order)).astype(np.uint8)
    rings = (np.arange(RINGS) * 7 % 64).astype(np.uint8)
    sent = loops.picked(values, level.step, level.banded)
    outliers = loops.outliers(values, level.step, level.unsent_banded, level.unsent)
    magnitudes = loops.quantised(sent, level.classes, table.thresholds)
    payload = loops.written(magnitudes, plan, level.lanes, outliers)
    read, _ = loops.read([payload], plan, table.offsets, table.log_scale.size)
    small, _, places = loops.narrowed(read)
    kept = loops.placed(magnitudes // 2, level.classes, table.offsets)
    energy, left = loops.ring_energies(sent, kept, ring)
    base, classes = loops.expected(kept, ring, level.classes, rings)
    change = loops.quantised(sent - base.astype(np.float32) / 64, classes, table.thresholds)
    changed = loops.written(change, loops.plan(classes, table.model), level.lanes, outliers)
    return {
        "sent": sent, "outliers": outliers, "payload": np.frombuffer(payload, np.uint8),
        "difference": np.frombuffer(changed, np.uint8), "read": read, "small": small,
        "places": places, "base": base, "classes": classes, "kept": kept, "energy": energy,
        "left": left, "spread": loops.spread(small, level.banded, 0.37, table.log_scale.size),
    }  # fmt: skip


def of_fkt(
    loops: Loops, table: FktTable, number: int, banded: Array
) -> Iterator[tuple[str, Array]]:
    """What each loop returns, from the coefficients of several samples."""
    level = Level.of(table, number)
    plan = loops.plan(level.classes, table.model)
    yield from (("single", plan.single), ("sparse", plan.sparse), ("first", plan.first))
    for sample, values in enumerate(banded):
        try:
            found = of_sample(loops, table, level, plan, values)
        except TooLarge:
            found = {"refused": np.ones(1)}
        yield from ((f"{what}/{sample}", array) for what, array in found.items())
    rows = banded.reshape(len(banded), *table.log_scale.shape)
    order = table.band_order[0].astype(np.int32)
    centred = loops.centred(rows, table.mean_coefficients, order)
    yield "centred", centred
    yield "restored", loops.restored(centred, table.mean_coefficients, order)
    flat, matrix = rows.reshape(-1), np.outer(np.arange(5, 8), [0.3, -0.7, 0.11]).astype(np.float32)
    for inner in (1, 5):
        some = flat[: len(flat) // (3 * inner) * 3 * inner].reshape(-1, 3, inner)
        yield f"in blocks/{inner}", loops.in_blocks(some, matrix)


def of_affine(loops: AffineLoops, rows: Array) -> Iterator[tuple[str, Array]]:
    """The same of quantisation to 8 and 4 bits."""
    rows = rows[np.newaxis]
    low, high = rows.min(2, keepdims=True), rows.max(2, keepdims=True)
    for top in (255, 15):
        step = (high - low) / np.float32(top)
        scale = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
        symbols = loops.symbols(rows, low, scale, top)
        yield f"symbols/{top}", symbols
        yield f"values/{top}", loops.values(symbols, low, step)
    flat = symbols.reshape(1, -1)
    yield "nibbles", loops.packed(flat)
    yield "symbols again", loops.unpacked(loops.packed(flat), flat.shape[1])


def outputs(made: Mapping[str, Array]) -> dict[str, Array]:
    """All arrays of OUT."""
    if EXTENSION is None:
        raise SystemExit(f"the extension is not used: {why_not()}")
    forms = {
        "numpy": (NumpyLoops(), NumpyAffineLoops()),
        "C": (NativeLoops(EXTENSION), NativeAffineLoops(EXTENSION)),
    }
    found: dict[str, Array] = {}
    for case in sorted({name.partition("/")[0] for name in made}):
        arrays = {
            name.rpartition("/")[2]: array
            for name, array in made.items()
            if name.startswith(f"{case}/table/")
        }
        given = json.loads(str(made[f"{case}/spec"]))
        spec = TensorSpec(**given | {"shape": tuple(given["shape"])})
        table, level = FktTable.from_arrays(spec, arrays), int(made[f"{case}/level"])
        for form, (loops, affine) in forms.items():
            for what, array in of_fkt(loops, table, level, made[f"{case}/banded"]):
                found[f"{case}/{form}/{what}"] = array
            for what, array in of_affine(affine, made[f"{case}/rows"]):
                found[f"{case}/{form}/affine {what}"] = array
    return found


def main() -> None:
    made, out = sys.argv[1:]
    np.savez(out, **outputs(dict(np.load(made))))


if __name__ == "__main__":
    main()
