"""The transform codec: its error bound, its sizes, and the two ways to decode."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from fkt_tables import (
    MAP,
    SPECS,
    codec_of,
    coder_of,
    each_spec,
    like_calibration,
    middle_level,
    spec_of,
    table_of,
)
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    Array,
    Codec,
    CodecError,
    TensorSpec,
)
from splitpoint.codec.fkt.codec import MIN_SAMPLE_BYTES
from splitpoint.codec.fkt.coefficients import MAX_ERROR_STEPS
from splitpoint.codec.fkt.symbols import MAX_MAGNITUDE
from splitpoint.codec.fkt.table import Level
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from splitpoint.partition.calibrate.fkt_fit import LEVEL_LOSSES

# Every distribution is a function of a specification, a batch size and a seed.
INPUTS = {
    "like calibration": like_calibration,
    "constant": lambda spec, count, seed: np.full(spec.shape_at(count), 1.5, np.float32),
    "zeros": lambda spec, count, seed: np.zeros(spec.shape_at(count), np.float32),
    "weak": lambda spec, count, seed: like_calibration(spec, count, seed) * np.float32(1e-6),
    "denormal": lambda spec, count, seed: np.full(spec.shape_at(count), 1e-42, np.float32),
    "strong": lambda spec, count, seed: like_calibration(spec, count, seed) * np.float32(8),
    "far out": lambda spec, count, seed: like_calibration(spec, count, seed) * np.float32(1e3),
    "white": lambda spec, count, seed: (
        np.random.default_rng(seed).normal(0, 3, spec.shape_at(count)).astype(np.float32)
    ),
    "spike": lambda spec, count, seed: _spike(spec, count, seed, 20),
    "high spike": lambda spec, count, seed: _spike(spec, count, seed, 1e4),
}
# These must be carried, whatever the table; others may be too large or too long.
ALWAYS_CARRIED = {"like calibration"}


def _spike(spec: TensorSpec, count: int, seed: int, height: float) -> Array:
    array = like_calibration(spec, count, seed)
    array.flat[np.random.default_rng(seed).integers(array.size)] = height
    return array


def assert_within_bound(spec: TensorSpec, level: int, array: Array, *, carried: bool) -> bool:
    """The codec's promise, if the codec carries the array; whether it does."""
    codec, table = codec_of(spec, level), table_of(spec)
    batch = spec.batch_of(array.shape)
    try:
        payload = codec.encode(array, spec)
    except CodecError:
        assert not carried
        return False
    assert len(payload) <= codec.max_payload_bytes(spec, batch)
    decoded = codec.decode(payload, spec, batch)
    assert decoded.shape == array.shape
    assert decoded.dtype == np.float32
    assert decoded.flags.c_contiguous
    assert np.isfinite(decoded).all()
    step = coder_of(spec, level).level.step
    wanted = table.transform(table.grid.rows(array)).astype(np.float64)
    # What the decoder holds is exact but for the rounding of each number.
    held = codec.coefficients(payload, spec, batch).astype(np.float64)
    assert (abs(held - wanted) <= MAX_ERROR_STEPS * step + 2e-6 * abs(wanted)).all()
    # What has gone through both transforms has been rounded by a few hundred sums.
    found = table.transform(table.grid.rows(decoded)).astype(np.float64)
    origin = table.transform(np.zeros(wanted.shape, np.float32))
    slack = 1e-4 * max(abs(wanted).max(), abs(origin).max())
    assert (abs(found - wanted) <= MAX_ERROR_STEPS * step + slack).all()
    return True


@pytest.mark.parametrize("kind", INPUTS)
@each_spec
def test_no_coefficient_is_further_off_than_promised(spec: TensorSpec, kind: str) -> None:
    for level in (1, 4, table_of(spec).levels):
        array = INPUTS[kind](spec, 2, 3_000 + level)
        assert_within_bound(spec, level, array, carried=kind in ALWAYS_CARRIED)


@pytest.mark.parametrize("kind", sorted(set(INPUTS) - ALWAYS_CARRIED))
def test_most_unusual_inputs_are_carried_by_some_table(kind: str) -> None:
    """Else the test before would show nothing."""
    carried = [
        assert_within_bound(spec, level, INPUTS[kind](spec, 1, 4_000 + seed), carried=False)
        for spec in SPECS.values()
        for level in (1, 3)
        for seed in range(3)
    ]
    assert any(carried)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    """Of any rank that the codec may meet, small; the batch anywhere."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    return spec_of(shape, draw(st.integers(0, len(shape) - 1)))


@given(
    spec=specs(),
    batch=st.integers(1, 3),
    level=st.integers(1, 16),
    kind=st.sampled_from(sorted(INPUTS)),
    seed=st.integers(0, 999),
)
def test_bound_holds_for_any_shape(
    spec: TensorSpec, batch: int, level: int, kind: str, seed: int
) -> None:
    level = 1 + level % table_of(spec).levels
    array = INPUTS[kind](spec, batch, 5_000 + seed)
    assert_within_bound(spec, level, array, carried=kind == "like calibration")


@each_spec
def test_batch_of_samples_decodes_to_what_each_gives_alone(spec: TensorSpec) -> None:
    for level in (1, 4, table_of(spec).levels):
        codec, array = codec_of(spec, level), like_calibration(spec, 5, 6_000 + level)
        together = codec.decode(codec.encode(array, spec), spec, 5)
        alone = [
            codec.decode(codec.encode(np.ascontiguousarray(sample), spec), spec, 1)
            for sample in np.split(array, 5, axis=spec.batch_dim)
        ]
        np.testing.assert_array_equal(together, np.concatenate(alone, axis=spec.batch_dim))


def test_samples_of_a_batch_may_differ_in_everything() -> None:
    """Zeros, a spike with outliers, and a usual sample."""
    codec = codec_of(MAP, 1)
    samples = [INPUTS[kind](MAP, 1, 1) for kind in ("zeros", "spike", "like calibration")]
    array = np.concatenate(samples)
    assert assert_within_bound(MAP, 1, array, carried=True)
    together = codec.decode(codec.encode(array, MAP), MAP, 3)
    for row, sample in enumerate(samples):
        np.testing.assert_allclose(
            together[row : row + 1],
            codec.decode(codec.encode(sample, MAP), MAP, 1),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("order", ["C", "F"])
@each_spec
def test_memory_order_does_not_break_the_bound(spec: TensorSpec, order: str) -> None:
    array = np.array(like_calibration(spec, 2), order=order)
    assert assert_within_bound(spec, middle_level(spec), array, carried=True)
    flipped = np.flip(np.flip(array).copy())
    assert assert_within_bound(spec, middle_level(spec), flipped, carried=True)


# --- what cannot be carried ---


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30])
@each_spec
def test_values_beyond_all_bounds_are_refused(spec: TensorSpec, value: float) -> None:
    codec = codec_of(spec, middle_level(spec))
    for place in (0, 7, -1):
        array = like_calibration(spec, 2)
        array.flat[place] = value
        with pytest.raises(CodecError, match="'x'") as caught:
            codec.encode(array, spec)
        assert caught.value.remedy


@each_spec
def test_all_values_beyond_all_bounds_are_refused(spec: TensorSpec) -> None:
    codec = codec_of(spec, 1)
    for value in (np.finfo(np.float32).max, np.finfo(np.float32).min, np.nan):
        with pytest.raises(CodecError):
            codec.encode(np.full(spec.shape, value, np.float32), spec)


@pytest.mark.parametrize("power", range(2, 13))
def test_ever_larger_inputs_are_within_the_bound_or_refused(power: int) -> None:
    """A single large wave takes all of the symbols' range, and is refused beyond it."""
    spec, level = MAP, 1
    table = table_of(spec)
    wave = np.zeros((1, *table.log_scale.shape), np.float32)
    wave[0, 0, 0] = 10.0**power * coder_of(spec, level).level.step
    array = table.grid.tensor(table.inverse(wave), spec.shape)
    carried = assert_within_bound(spec, level, array, carried=10**power < MAX_MAGNITUDE * 0.99)
    assert carried or 10**power > MAX_MAGNITUDE * 0.99


def test_random_noise_is_refused_rather_than_made_longer() -> None:
    spec = MAP
    noise = np.random.default_rng(0).normal(0, 1e4, spec.shape).astype(np.float32)
    with pytest.raises(CodecError, match="grow"):
        codec_of(spec, 1).encode(noise, spec)


def test_payload_bound_is_the_size_in_memory() -> None:
    codec = codec_of(MAP, 1)
    assert codec.max_payload_bytes(MAP, 3) == MAP.nbytes_at(3)
    tiny = spec_of((1, 2))
    assert codec_of(tiny, 1).max_payload_bytes(tiny, 3) == 3 * MIN_SAMPLE_BYTES


def test_other_specifications_are_not_supported() -> None:
    codec = codec_of(MAP, 1)
    assert isinstance(codec, Codec)
    assert codec.supports(MAP)
    assert not codec.supports(replace(MAP, name="y"))
    assert not codec.supports(replace(MAP, dtype="float16"))
    assert not codec.supports(replace(MAP, shape=(1, 6, 8, 9)))
    assert not codec.supports(replace(MAP, batch_dim=1))


# --- damage ---


@each_spec
def test_every_truncation_is_refused(spec: TensorSpec) -> None:
    for level in range(1, table_of(spec).levels + 1):
        codec = codec_of(spec, level)
        for seed in range(3):
            payload = codec.encode(like_calibration(spec, 1, 7_000 + seed), spec)
            for length in range(max(len(payload) - 40, 0), len(payload)):
                with pytest.raises(CodecError):
                    codec.decode(payload[:length], spec, 1)


@each_spec
def test_payload_of_another_batch_size_is_refused(spec: TensorSpec) -> None:
    codec = codec_of(spec, middle_level(spec))
    payload = codec.encode(like_calibration(spec, 2), spec)
    assert codec.decode(payload, spec, 2).shape == spec.shape_at(2)
    for batch in (1, 3, 4):
        with pytest.raises(CodecError):
            codec.decode(payload, spec, batch)
    for wrong in (b"", payload + b"\0", payload + b"\0\0", payload * 2, payload[1:]):
        with pytest.raises(CodecError):
            codec.decode(wrong, spec, 2)


# --- levels ---


@pytest.mark.parametrize("name", ["map", "channels last", "tokens", "video", "windows"])
def test_finer_levels_cost_more_and_err_less(name: str) -> None:
    spec = SPECS[name]
    array = like_calibration(spec, 24, 8_000)
    table = table_of(spec)
    wanted = table.transform(table.grid.rows(array))
    sizes, errors = [], []
    for level in range(1, table.levels + 1):
        codec = codec_of(spec, level)
        payload = codec.encode(array, spec)
        sizes.append(len(payload))
        decoded = codec.decode(payload, spec, 24)
        found = table.transform(table.grid.rows(decoded))
        errors.append(float(((found - wanted) ** 2).sum()))
    assert table.levels == len(LEVEL_LOSSES)
    assert (np.diff(sizes) > 0).all(), sizes
    assert (np.diff(errors) < 0).all(), errors
    assert sizes[-1] < spec.nbytes_at(24) / 4
    assert errors[-1] / errors[0] < 2 * LEVEL_LOSSES[-1] / LEVEL_LOSSES[0]


@pytest.mark.parametrize("name", ["map", "windows"])
def test_loss_is_about_that_of_the_level(name: str) -> None:
    """Half the squared error of a sample is the loss a level stands for, on fresh inputs too."""
    spec = SPECS[name]
    array = like_calibration(spec, 48, 9_000)
    table = table_of(spec)
    wanted = table.transform(table.grid.rows(array))
    for level, loss in enumerate(LEVEL_LOSSES, start=1):
        codec = codec_of(spec, level)
        held = codec.coefficients(codec.encode(array, spec), spec, 48)
        found = float(((held - wanted) ** 2).sum()) / 2 / 48
        assert loss / 1.7 < found < loss * 1.7


def test_levels_send_ever_more_coefficients() -> None:
    levels = [Level.of(table_of(MAP), level) for level in range(1, table_of(MAP).levels + 1)]
    for coarse, fine in pairwise(levels):
        assert coarse.step > fine.step
        assert set(coarse.order.tolist()) <= set(fine.order.tolist())
    for level in levels:
        assert len(np.unique(level.order)) == len(level.order)
        assert (np.diff(level.classes.astype(int)) <= 0).all()


# --- decoding in torch ---


@pytest.mark.parametrize("batch", [1, 3])
@each_spec
def test_torch_decodes_to_the_same(spec: TensorSpec, batch: int) -> None:
    codec, table = codec_of(spec, middle_level(spec)), table_of(spec)
    payload = codec.encode(like_calibration(spec, batch), spec)
    held = codec.coefficients(payload, spec, batch)
    expected = codec.decode(payload, spec, batch)
    np.testing.assert_array_equal(
        table.grid.tensor(table.inverse(held), spec.shape_at(batch)), expected
    )
    banded = codec.packed(payload, spec, batch).coefficients()
    before = banded.copy()
    found = TorchInverse(table, torch.device("cpu"))(torch.from_numpy(banded))
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * abs(expected).max())
    np.testing.assert_array_equal(banded, before)


@each_spec
def test_inverse_undoes_the_transform(spec: TensorSpec) -> None:
    table, array = table_of(spec), like_calibration(spec, 3)
    rows = table.grid.rows(array)
    before = rows.copy()
    found = table.inverse(table.transform(rows))
    np.testing.assert_allclose(found, rows, rtol=0, atol=1e-4 * abs(rows).max())
    np.testing.assert_array_equal(rows, before)
