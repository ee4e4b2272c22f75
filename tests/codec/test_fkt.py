"""The transform codec: its error bound, its sizes, its tables, and the two ways to decode."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fkt_tables import (
    MAP,
    SPECS,
    codec_of,
    coder_of,
    like_calibration,
    middle_level,
    spec_of,
    table_of,
)
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    NO_TABLES,
    Array,
    Codec,
    CodecError,
    CodecSet,
    TensorSpec,
    codec_of_tensor,
)
from splitpoint.codec.fkt.codec import MIN_SAMPLE_BYTES
from splitpoint.codec.fkt.coefficients import MAX_ERROR_STEPS
from splitpoint.codec.fkt.symbols import MAX_MAGNITUDE
from splitpoint.codec.fkt.table import ARRAYS, FktTable, Level
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from splitpoint.partition.calibrate.fkt_fit import LEVEL_LOSSES

each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)

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


# --- the error bound ---


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
    before = held.copy()
    found = TorchInverse(table, torch.device("cpu"))(torch.from_numpy(held))
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * abs(expected).max())
    np.testing.assert_array_equal(held, before)


@each_spec
def test_inverse_undoes_the_transform(spec: TensorSpec) -> None:
    table, array = table_of(spec), like_calibration(spec, 3)
    rows = table.grid.rows(array)
    before = rows.copy()
    found = table.inverse(table.transform(rows))
    np.testing.assert_allclose(found, rows, rtol=0, atol=1e-4 * abs(rows).max())
    np.testing.assert_array_equal(rows, before)


# --- tables ---


@each_spec
def test_table_from_its_arrays_writes_the_same_payloads(spec: TensorSpec, tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", **table_of(spec).to_arrays())
    with np.load(tmp_path / "table.npz") as stored:
        again = FktTable.from_arrays(spec, dict(stored))
    assert set(again.to_arrays()) == set(ARRAYS)
    sets = [CodecSet(lambda boundary, own=own: {"x": own}) for own in (table_of(spec), again)]
    array = like_calibration(spec, 2)
    for level in (1, again.levels):
        one, other = (known.named(f"fkt@{level}", 0) for known in sets)
        payload = one.encode(array, spec)
        assert other.encode(array, spec) == payload
        np.testing.assert_array_equal(other.decode(payload, spec, 2), one.decode(payload, spec, 2))


def changed(name: str, place: tuple[int, ...] | int, value: float) -> Array:
    found: Array = table_of(MAP).to_arrays()[name].copy()
    found[place] = value
    return found


@pytest.mark.parametrize("name", ARRAYS)
def test_table_without_an_array_is_refused(name: str) -> None:
    arrays = table_of(MAP).to_arrays()
    del arrays[name]
    with pytest.raises(CodecError, match=name):
        FktTable.from_arrays(MAP, arrays)


@pytest.mark.parametrize("name", ARRAYS)
def test_array_of_another_dtype_or_shape_is_refused(name: str) -> None:
    arrays = table_of(MAP).to_arrays()
    array = arrays[name]
    others = [
        array.astype(np.float64),
        array.astype(np.int32),
        array[None],
        array[..., :-1],
        array[..., :0],
        np.concatenate([array, array], axis=-1),
        array.astype(array.dtype.newbyteorder()) if array.itemsize > 1 else array[:-1],
        array.reshape(-1)[0],
    ]
    for other in others:
        with pytest.raises(CodecError):
            FktTable.from_arrays(MAP, arrays | {name: other})


def test_table_whose_levels_have_no_dimension_is_refused() -> None:
    none = {"log_step": np.array(-34, np.int16), "lanes": np.array(8, np.int16)}
    with pytest.raises(CodecError):
        FktTable.from_arrays(MAP, table_of(MAP).to_arrays() | none)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "place"), [("mean", (5, 0)), ("forward", (1, 0, 2, 3)), ("thresholds", (3, 3))]
)
def test_array_that_is_not_finite_is_refused(
    name: str, place: tuple[int, ...], value: float
) -> None:
    arrays = table_of(MAP).to_arrays()
    with pytest.raises(CodecError, match=name):
        FktTable.from_arrays(MAP, arrays | {name: changed(name, place, value)})


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("thresholds", (0, 1), 1.76),
        ("thresholds", (39, 9), 8.24),
        ("offsets", (0, 1), 33),
        ("offsets", (39, 15), -33),
        ("offsets", (39, 15), -128),
        ("frequencies", (0, 0), 0),
        ("frequencies", (39, 15), 4096),
        ("frequencies", (39, 15), 65535),
        ("log_step", 0, 401),
        ("log_step", 0, -401),
        ("log_step", 0, -32768),
        ("lanes", 0, 0),
        ("lanes", 0, -8),
        ("lanes", 0, 1025),
        ("lanes", -1, -32768),
    ],
)
def test_array_out_of_range_is_refused(
    name: str, place: tuple[int, ...] | int, value: float
) -> None:
    arrays = table_of(MAP).to_arrays()
    FktTable.from_arrays(MAP, arrays)
    with pytest.raises(CodecError, match=name):
        FktTable.from_arrays(MAP, arrays | {name: changed(name, place, value)})


@pytest.mark.parametrize("by", [1, -1])
def test_frequencies_that_do_not_add_up_are_refused(by: int) -> None:
    arrays = table_of(MAP).to_arrays()
    most = int(arrays["frequencies"][7].argmax())
    other = changed("frequencies", (7, most), int(arrays["frequencies"][7, most]) + by)
    with pytest.raises(CodecError, match="frequencies"):
        FktTable.from_arrays(MAP, arrays | {"frequencies": other})


def test_position_of_no_band_is_refused() -> None:
    with pytest.raises(CodecError):
        FktTable.from_arrays(MAP, table_of(MAP).to_arrays() | {"band": changed("band", (5,), 255)})


def test_frequency_of_zero_is_refused_even_if_the_sum_fits() -> None:
    arrays = table_of(MAP).to_arrays()
    frequencies = arrays["frequencies"].copy()
    frequencies[4, 0] += frequencies[4, 15]
    frequencies[4, 15] = 0
    with pytest.raises(CodecError, match="frequencies"):
        FktTable.from_arrays(MAP, arrays | {"frequencies": frequencies})


def test_too_many_or_no_levels_are_refused() -> None:
    arrays = table_of(MAP).to_arrays()
    for count in (0, 17):
        levels = {name: np.full(count, 8, np.int16) for name in ("log_step", "lanes")}
        with pytest.raises(CodecError):
            FktTable.from_arrays(MAP, arrays | levels)


def test_table_of_another_shape_is_refused() -> None:
    for other in (spec_of((1, 6, 8, 9)), spec_of((1, 7, 8, 8)), spec_of((1, 384))):
        with pytest.raises(CodecError):
            FktTable.from_arrays(other, table_of(MAP).to_arrays())


def test_transform_that_cannot_be_undone_is_refused() -> None:
    """At the latest where it is used; never with another error."""
    arrays = table_of(MAP).to_arrays()
    forward = np.zeros_like(arrays["forward"])
    with pytest.raises(CodecError):
        _ = FktTable.from_arrays(MAP, arrays | {"forward": forward}).backward


def test_refusal_names_the_tensor() -> None:
    spec = replace(MAP, name="layer4.relu")
    with pytest.raises(CodecError, match=r"layer4\.relu"):
        FktTable.from_arrays(spec, {})


# --- the set of a bundle ---

COUNTS = TensorSpec(name="counts", dtype="int64", shape=(1, 5), batch_dim=0)


def loader(boundary: int) -> dict[str, FktTable]:
    return {"x": table_of(MAP)} if boundary == 3 else {}


def test_boundary_of_two_tensors_sends_integers_raw() -> None:
    codec = CodecSet(loader).named("fkt@4", 3)
    assert codec_of_tensor(codec, MAP) is codec
    raw = codec_of_tensor(codec, COUNTS)
    assert raw.name == "raw"
    assert raw.name != codec.name == "fkt@4"
    counts = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(raw.decode(raw.encode(counts, COUNTS), COUNTS, 2), counts)
    array = like_calibration(MAP, 2)
    decoded = codec.decode(codec.encode(array, MAP), MAP, 2)
    np.testing.assert_allclose(decoded, array, atol=0.5 * array.std())


def test_boundary_of_two_calibrated_tensors_keeps_them_apart() -> None:
    other = spec_of((1, 17, 12), name="y")
    known = CodecSet(lambda boundary: {"x": table_of(MAP), "y": table_of(other)})
    codec = known.named("fkt@2", 0)
    for spec in (MAP, other):
        array = like_calibration(spec)
        payload = codec.encode(array, spec)
        assert payload == codec_of(spec, 2).encode(array, spec)
        assert codec.decode(payload, spec, 1).shape == spec.shape


def test_boundary_without_tables_names_the_remedy() -> None:
    for known in (CodecSet(loader), NO_TABLES):
        for name in ("fkt@1", "fkt", "fkt@99"):
            with pytest.raises(CodecError, match="boundary 0") as caught:
                known.named(name, 0)
            assert "--calibrate" in caught.value.remedy


@pytest.mark.parametrize(
    "setting",
    ["", "@", "@0", "@9", "@-1", "@+1", "@1.0", "@ 1", "@1 ", "@²", "@001", "@1@1", "@x" * 50],
)
@pytest.mark.parametrize("base", ["fkt", "fkt-video"])
def test_unknown_level_is_refused(base: str, setting: str) -> None:
    with pytest.raises(CodecError, match="unknown codec") as caught:
        CodecSet(loader).named(base + setting, 3)
    assert f"@{table_of(MAP).levels}" in caught.value.remedy
    assert len(str(caught.value)) < 200


def test_level_must_be_one_of_all_tensors() -> None:
    arrays = table_of(MAP).to_arrays()
    few = {name: arrays[name][:2] for name in ("log_step", "lanes")}
    short = FktTable.from_arrays(MAP, arrays | few)
    known = CodecSet(lambda boundary: {"x": table_of(MAP), "y": short})
    known.named("fkt@2", 0)
    with pytest.raises(CodecError, match="unknown codec"):
        known.named("fkt@3", 0)


def test_tables_are_loaded_once_and_other_codecs_need_none() -> None:
    asked: list[int] = []

    def load(boundary: int) -> dict[str, FktTable]:
        asked.append(boundary)
        return loader(boundary)

    known = CodecSet(load)
    assert known.named("q8", 3).name == "q8"
    assert known.named("raw", 0).name == "raw"
    assert asked == []
    first = known.named("fkt@1", 3)
    assert known.named("fkt@1", 3) is first
    known.named("fkt@2", 3)
    assert asked == [3]
    with pytest.raises(CodecError, match="unknown codec"):
        known.named("fktx@1", 3)


# --- threads, and no torch ---


def test_codec_is_shared_between_threads() -> None:
    table = FktTable.from_arrays(MAP, table_of(MAP).to_arrays())
    codec = CodecSet(lambda boundary: {"x": table}).named("fkt@4", 0)
    arrays = [like_calibration(MAP, 2, seed) for seed in range(2_000, 2_008)]
    expected = [codec_of(MAP, 4).encode(array, MAP) for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        payloads = list(pool.map(lambda array: codec.encode(array, MAP), arrays))
        assert payloads == expected
        decoded = list(pool.map(lambda payload: codec.decode(payload, MAP, 2), payloads))
    for found, payload in zip(decoded, expected, strict=True):
        np.testing.assert_array_equal(found, codec_of(MAP, 4).decode(payload, MAP, 2))


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "scipy", "skimage"):
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocker())
import numpy as np
from splitpoint.codec import CodecSet, TensorSpec
from splitpoint.codec.fkt.table import FktTable
folder, shape = sys.argv[1], tuple(map(int, sys.argv[2].split(",")))
spec = TensorSpec(name="x", dtype="float32", shape=shape, batch_dim=0)
with np.load(folder + "/table.npz") as arrays:
    table = FktTable.from_arrays(spec, dict(arrays))
codec = CodecSet(lambda boundary: {"x": table}).named("fkt@4", 0)
payload = codec.encode(np.load(folder + "/array.npy"), spec)
np.save(folder + "/decoded.npy", codec.decode(payload, spec, 2))
open(folder + "/payload", "wb").write(payload)
stream = CodecSet(lambda boundary: {"x": table}).named("fkt-video@4", 0)
assert stream.encode(np.load(folder + "/array.npy")[:1], spec)
assert "torch" not in sys.modules
"""


def test_edge_encodes_and_decodes_without_torch(tmp_path: Path) -> None:
    """And in another process the same table writes the same bytes."""
    array = like_calibration(MAP, 2)
    np.savez(tmp_path / "table.npz", **table_of(MAP).to_arrays())
    np.save(tmp_path / "array.npy", array)
    shape = ",".join(map(str, MAP.shape))
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_TORCH, str(tmp_path), shape],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    codec, payload = codec_of(MAP, 4), (tmp_path / "payload").read_bytes()
    assert payload == codec.encode(array, MAP)
    np.testing.assert_array_equal(np.load(tmp_path / "decoded.npy"), codec.decode(payload, MAP, 2))
