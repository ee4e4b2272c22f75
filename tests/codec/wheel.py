"""Is the extension in the wheel that is installed, and does it do what numpy's form does?

Run by cibuildwheel for each wheel that it has built, with nothing installed but what that needs.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from splitpoint.codec import TensorSpec
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.loops import Loops
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.symbols import SYMBOLS
from splitpoint.codec.fkt.table import CLASSES, FktTable
from splitpoint.codec.native import EXTENSION, why_not

SPEC = TensorSpec(name="x", dtype="float32", shape=(1, 6, 8, 8), batch_dim=0)


def table() -> FktTable:
    """One that was fitted to nothing: coefficients of every class, and no transform."""
    rare = 1 + 6 * np.arange(CLASSES, dtype=np.uint16)[:, None].repeat(SYMBOLS, 1)
    rare[:, 0] += (4096 - rare.sum(1)).astype(np.uint16)
    return FktTable(
        spec=SPEC,
        mean=np.zeros((6, 1), np.float32),
        axes=np.tile(np.eye(8, dtype=np.float32).ravel(), 2),
        forward=np.eye(6, dtype=np.float32)[None, None],
        band=np.zeros(64, np.uint8),
        log_scale=np.arange(-30, 354, dtype=np.int16).clip(-30, 90).astype(np.int8).reshape(6, 64),
        log_step=np.array([0], np.int16),
        lanes=np.array([3], np.int16),
        frequencies=rare,
        offsets=np.zeros((CLASSES, SYMBOLS), np.int8),
        thresholds=np.tile(np.arange(SYMBOLS, dtype=np.float32) - 0.5, (CLASSES, 1)),
    )


def main() -> int:
    if EXTENSION is None:
        print(f"the extension is not used: {why_not()}", file=sys.stderr)
        return 1
    given = (30 * np.random.default_rng(1).normal(0, 1, (50, 6, 8, 8)) ** 3).astype(np.float32)
    both: tuple[Loops, Loops] = (NumpyLoops(), NativeLoops(EXTENSION))
    wanted, found = (
        Fkt("fkt@1", {"x": CoefficientCoder(replace(table(), loops=loops), 1)}) for loops in both
    )
    for sample in given[:, None]:
        payload = wanted.encode(sample, SPEC)
        assert found.encode(sample, SPEC) == payload
        assert np.array_equal(found.decode(payload, SPEC, 1), wanted.decode(payload, SPEC, 1))
    print(f"{EXTENSION.__file__}: {len(given)} payloads as the reference has them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
