"""The tables of the transform codec: what is in one, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fkt_tables import (
    MAP,
    each_spec,
    like_calibration,
    spec_of,
    table_of,
)
from splitpoint.codec import (
    Array,
    CodecError,
    CodecSet,
    TensorSpec,
)
from splitpoint.codec.fkt.table import ARRAYS, FktTable


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
