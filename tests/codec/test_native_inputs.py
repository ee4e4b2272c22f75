"""Inputs at the edges: views of any layout, contents that do not fit, errors of several samples."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fkt_tables import SPECS, like_calibration, table_of
from splitpoint.codec import Array, CodecError
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.loops import Loops, TooLarge
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.symbol_plan import SymbolPlan
from splitpoint.codec.native import EXTENSION, readable, why_not
from splitpoint.codec.simple.affine import Affine

needs_c = pytest.mark.skipif(EXTENSION is None, reason=why_not())
both = pytest.mark.parametrize(
    "loops", [NumpyLoops(), pytest.param(NativeLoops(EXTENSION), marks=needs_c)], ids=["numpy", "C"]
)
MAP = SPECS["map"]


def misaligned(array: Array) -> Array:
    """The same at an odd address, as in a message."""
    found = np.frombuffer(bytearray(1 + array.nbytes), array.dtype, offset=1).reshape(array.shape)
    found[...] = array
    assert not found.flags.aligned
    return found


def coder_of(loops: Loops, level: int = 4) -> CoefficientCoder:
    return CoefficientCoder(replace(table_of(MAP), loops=loops), level)


# --- layouts ---


@pytest.mark.parametrize("bits", [4, 8])
def test_affine_takes_views_of_any_layout(bits: int) -> None:
    array, codec = like_calibration(MAP, 2), Affine("affine", bits)
    payload = codec.encode(array, MAP)
    assert codec.encode(misaligned(array), MAP) == payload
    assert codec.encode(np.asfortranarray(array), MAP) == payload


@both
def test_what_no_axis_is_transformed_of_may_lie_anywhere(loops: Loops) -> None:
    """Only then do the loops see the user's own memory."""
    rows = like_calibration(MAP, 2).reshape(2, 6, 64)
    mean, order = rows[0] * 2, np.arange(64, dtype=np.int32)[::-1].copy()
    for given in (misaligned(rows), np.asfortranarray(rows), rows[::1, :, ::-1][..., ::-1]):
        np.testing.assert_array_equal(
            loops.centred(given, mean, order), (rows - mean)[..., ::-1], strict=True
        )
        np.testing.assert_array_equal(
            loops.restored(given, mean, order), rows[..., ::-1] + mean, strict=True
        )


@both
def test_a_tables_arrays_may_lie_anywhere(loops: Loops) -> None:
    table = replace(table_of(MAP), loops=loops)
    scattered = {
        name: misaligned(own) for name, own in table.to_arrays().items() if own.itemsize > 1
    }
    array = like_calibration(MAP)
    payloads = [
        Fkt("fkt", {MAP.name: CoefficientCoder(own, 4)}).encode(array, MAP)
        for own in (table, replace(table, **scattered))
    ]
    assert payloads[0] == payloads[1]


def test_what_is_readable_is_not_copied() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert readable(array) is array
    for view in (array.T, array[:, ::2], misaligned(array)):
        found = readable(view)
        assert found.flags.c_contiguous
        assert found.flags.aligned
        np.testing.assert_array_equal(found, view)


# --- contents ---


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e6])
def test_what_has_no_magnitude_is_too_large(loops: Loops, value: float) -> None:
    steps = np.array([0, 1.5, value, 3], np.float32)
    with pytest.raises(TooLarge):
        loops.quantised(steps, np.zeros(4, np.uint8), table_of(MAP).thresholds)


@both
def test_of_no_coefficients_there_is_no_energy(loops: Loops) -> None:
    nothing = np.zeros(0, np.float32)
    for found in loops.ring_energies(nothing, nothing.astype(np.int64), nothing.astype(np.uint8)):
        assert found.dtype == np.float64
        assert not found.any()


@both
def test_the_first_damaged_sample_says_why(loops: Loops) -> None:
    """Whichever its damage is, and however many samples after it are damaged in other ways."""
    coder = coder_of(loops)
    good = [coder.write_intra(coder.banded(like_calibration(MAP, 1, seed))[0]) for seed in (1, 2)]
    lanes = int.from_bytes(good[0][:2], "little")
    damages = {
        b"\1": "ends within its head",
        b"\0\0" + good[0][2:]: "damaged head",
        good[0][:2] + b"\1\0" + b"\xff" * 8 + good[0][4:]: "names a coefficient",
        good[0][: 4 + 4 * lanes - 1]: "ends within its lanes",
        good[0][:4] + bytes(4 * lanes) + good[0][4 + 4 * lanes :]: "payload is damaged",
        good[0] + b"\0": "not the length",
    }
    for first, why in damages.items():
        for second in damages:
            with pytest.raises(CodecError, match=why):
                coder.read([good[0], first, good[1], second], coder.plan)


def misfit_plans() -> dict[str, SymbolPlan]:
    plan = coder_of(NumpyLoops()).plan
    assert len(plan.single)
    assert len(plan.sparse)
    beyond = len(plan.classes)
    none, all_bits = (np.full_like(plan.model.shares, value) for value in (0, 0xFFFFFFFF))
    changed = {"widths of 0": none, "widths beyond 2^12": all_bits}
    plans = {}
    for name, shares in changed.items():
        model = object.__new__(type(plan.model))
        model.__dict__.update(plan.model.__dict__, shares=shares)
        plans[name] = replace(plan, model=model)
    for value in (beyond, -1):
        plans[f"single {value}"] = replace(plan, single=np.full_like(plan.single, value))
        plans[f"sparse {value}"] = replace(plan, sparse=np.full_like(plan.sparse, value))
    plans["classes"] = replace(plan, classes=np.full_like(plan.classes, 200))
    plans["contexts"] = replace(plan, first=np.full_like(plan.first, 200))
    return plans


@needs_c
@pytest.mark.parametrize("name", misfit_plans())
def test_a_plan_that_does_not_fit_is_refused(name: str) -> None:
    """`FktTable` lets no such plan come about: the extension does not rely on it."""
    plan, coder = misfit_plans()[name], coder_of(NativeLoops(EXTENSION))
    magnitudes = np.ones(len(plan.classes), np.int32)
    payload = coder.write(magnitudes, coder.plan, 8, np.zeros(0))
    with pytest.raises(ValueError, match="do not fit"):
        coder.write(magnitudes, plan, 8, np.zeros(0))
    if "widths" not in name:  # of which reading makes no index and no divisor
        with pytest.raises(ValueError, match="do not fit"):
            coder.read([payload, payload], plan)


@needs_c
@pytest.mark.parametrize(("samples", "n"), [(1 << 62, 4), (1 << 62, 0), (-1, 4), (-1, 0)])
def test_a_number_of_samples_that_does_not_fit_is_refused(samples: int, n: int) -> None:
    extension: Any = EXTENSION
    with pytest.raises(ValueError, match="do not fit"):
        extension.spread(b"", np.zeros(n, np.int32), 1.0, samples, bytearray())


@both
def test_no_samples_are_spread_to_none(loops: Loops) -> None:
    found = loops.spread(np.zeros((0, 3), np.int16), np.arange(3, dtype=np.int32), 0.5, 5)
    assert found.shape == (0, 5)
    assert found.dtype == np.float32


# --- machines ---


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize(
    ("flags", "builds"),
    [(["-O3"], True), (["-O3", "-ffast-math"], False), (["-D__FLT_EVAL_METHOD__=2"], False)],
)
def test_it_is_not_built_for_another_arithmetic(flags: list[str], builds: bool) -> None:
    folder = Path(__file__).parents[2] / "codec/native"
    sources = sorted(path for path in folder.glob("*.c") if path.name != "module.c")
    compiled = subprocess.run(
        ["gcc", "-std=c11", "-fsyntax-only", "-w", *flags, *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (compiled.returncode == 0) == builds, compiled.stderr
    assert builds or "numpy's form serves" in compiled.stderr
