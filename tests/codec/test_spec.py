"""The contract between the two ends: dtypes, shapes and where the batch is."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    DTYPE_NUMBERS,
    DTYPES,
    CodecError,
    SpecError,
    SplitpointError,
    TensorSpec,
)
from splitpoint.codec.spec import MAX_RANK

GOOD = {"name": "x", "dtype": "float32", "shape": [1, 3], "batch_dim": 0}
SHAPES = st.lists(st.integers(1, 70), min_size=1, max_size=MAX_RANK).map(tuple)


def spec_of(shape, batch_dim=0, dtype="float32", name="x"):
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


@st.composite
def specs(draw):
    shape = draw(SHAPES)
    return spec_of(
        shape,
        draw(st.integers(0, len(shape) - 1)),
        draw(st.sampled_from(list(DTYPES))),
        draw(st.text(max_size=5)),
    )


def test_dtype_numbers_are_frozen():
    assert DTYPE_NUMBERS == {
        "float32": 1,
        "float16": 2,
        "uint8": 3,
        "int8": 4,
        "int32": 5,
        "int64": 6,
        "bool": 7,
        "float64": 8,
    }
    sizes = {name: dtype.itemsize for name, dtype in DTYPES.items()}
    assert sizes == {
        "float32": 4,
        "float16": 2,
        "uint8": 1,
        "int8": 1,
        "int32": 4,
        "int64": 8,
        "bool": 1,
        "float64": 8,
    }
    assert all(dtype.byteorder != ">" for dtype in DTYPES.values())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dtype": "complex64"}, "dtype 'complex64'"),
        ({"dtype": "f4"}, "dtype 'f4'"),
        ({"shape": ()}, "shape []"),
        ({"shape": (1,) * (MAX_RANK + 1)}, "shape [1, 1"),
        ({"shape": (1, 0)}, "shape [1, 0]"),
        ({"shape": (1, -3)}, "shape [1, -3]"),
        ({"batch_dim": 2}, "batch dimension 2"),
        ({"batch_dim": -1}, "batch dimension -1"),
    ],
)
def test_bad_specs_are_refused(change, complaint):
    good = {"name": "x", "dtype": "float32", "shape": (1, 3), "batch_dim": 0}
    assert TensorSpec(**good).shape == (1, 3)
    with pytest.raises(SpecError) as caught:
        TensorSpec(**{**good, **change})
    assert complaint in str(caught.value)


@given(specs(), st.integers(1, 16))
def test_batch_of_undoes_shape_at(spec, batch):
    shape = spec.shape_at(batch)
    assert len(shape) == len(spec.shape)
    assert shape[spec.batch_dim] == batch * spec.shape[spec.batch_dim]
    assert math.prod(shape) == batch * math.prod(spec.shape)
    assert spec.nbytes_at(batch) == math.prod(shape) * DTYPES[spec.dtype].itemsize
    assert spec.batch_of(shape) == spec.batch_of(list(shape)) == batch


@given(st.data())
def test_batch_of_takes_only_multiples_of_the_factor(data):
    extents = st.integers(1, 4)
    shape = data.draw(st.lists(extents, min_size=1, max_size=3).map(tuple))
    spec = spec_of(shape, data.draw(st.integers(0, len(shape) - 1)))
    other = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=3).map(tuple))
    fits = [batch for batch in range(1, 13) if spec.shape_at(batch) == other]
    if fits:
        assert [spec.batch_of(other)] == fits
    else:
        with pytest.raises(SpecError):
            spec.batch_of(other)


def test_misfit_shows_the_expected_shape():
    with pytest.raises(SpecError, match=r"\[65, 49, 96\], expected \[64\*batch, 49, 96\]"):
        spec_of((64, 49, 96)).batch_of((65, 49, 96))
    with pytest.raises(SpecError, match=r"expected \[3, batch\]"):
        spec_of((3, 1), 1).batch_of((3, 0))


def test_a_made_up_shape_is_never_written_out():
    class Endless(list):
        def __iter__(self):
            raise AssertionError("all of it was looked at")

    with pytest.raises(SpecError, match="of 5000000 dimensions, expected") as caught:
        spec_of((1, 3)).batch_of(Endless([4294967295]) * 5_000_000)
    assert len(str(caught.value)) < 250
    with pytest.raises(SpecError) as caught:
        spec_of((1,) * 100_000)
    assert len(str(caught.value)) < 250


def test_check_compares_dtype_and_shape():
    spec = spec_of((1, 3))
    assert spec.check(np.zeros((5, 3), np.float32)) == 5
    assert spec.check(np.zeros((3, 5), np.float32).T) == 5
    wrong = [
        np.zeros((5, 3), np.float64),
        np.zeros((5, 3), ">f4"),
        np.zeros((5, 4), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros(3, np.float32),
        np.float32(0),
    ]
    for array in wrong:
        with pytest.raises(SpecError):
            spec.check(array)


@pytest.mark.parametrize(
    ("shape", "batch_dim", "readable"),
    [
        ((1, 3, 8, 8), 0, (3, 8, 8)),
        ((7, 1), 1, (7,)),
        ((1, 1, 5), 1, (1, 5)),
        ((64, 49, 96), 0, (64, 49, 96)),
        ((1,), 0, ()),
    ],
)
def test_shape_without_batch(shape, batch_dim, readable):
    assert spec_of(shape, batch_dim).shape_without_batch == readable


@pytest.mark.parametrize(
    ("shape", "batch_dim", "dtype", "picture"),
    [
        ((1, 8, 9, 3), 0, "uint8", True),
        ((2, 8, 9, 3), 0, "uint8", True),
        ((1, 8, 9, 3), 0, "int8", False),
        ((1, 8, 9, 3), 1, "uint8", False),
        ((1, 3, 8, 9), 0, "uint8", False),
        ((1, 8, 9, 4), 0, "uint8", False),
        ((1, 9, 3), 0, "uint8", False),
        ((1, 8, 9, 3, 1), 0, "uint8", False),
    ],
)
def test_is_picture(shape, batch_dim, dtype, picture):
    assert spec_of(shape, batch_dim, dtype).is_picture is picture


@given(specs())
def test_json_roundtrip(spec):
    assert TensorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("missing", GOOD)
def test_json_without_a_field(missing):
    with pytest.raises(SpecError, match=f"lacks '{missing}'"):
        TensorSpec.from_json({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"dtype": None},
        {"dtype": ["float32"]},
        {"dtype": "float33"},
        {"shape": "13"},
        {"shape": None},
        {"shape": [1, 3.0]},
        {"shape": [1, "3"]},
        {"shape": [True, 3]},
        {"shape": []},
        {"batch_dim": "0"},
        {"batch_dim": 0.0},
        {"batch_dim": False},
        {"batch_dim": 2},
        {"one_sample": 1},
    ],
    ids=str,
)
def test_json_of_the_wrong_type(change):
    with pytest.raises(SpecError):
        TensorSpec.from_json({**GOOD, **change})


@pytest.mark.parametrize("data", [None, 5, "name", [GOOD], []], ids=repr)
def test_json_that_is_no_object(data):
    with pytest.raises(SpecError):
        TensorSpec.from_json(data)


def test_one_sample_has_one_shape():
    alone = TensorSpec(name="x", dtype="float32", shape=(2, 1, 4), batch_dim=0, one_sample=True)
    assert TensorSpec.from_json(alone.to_json()) == alone
    assert "one_sample" not in spec_of((2, 1, 4)).to_json()
    assert alone.batch_of((2, 1, 4)) == 1
    for shape in ((4, 1, 4), (1, 1, 4), (2, 2, 4), (2, 4)):
        with pytest.raises(SpecError, match="one sample at a time"):
            alone.batch_of(shape)


def test_errors_say_what_and_what_to_do():
    assert str(SplitpointError("it broke")) == "it broke"
    error = CodecError("it broke", "mend it")
    assert (str(error), error.what, error.remedy) == ("it broke: mend it", "it broke", "mend it")
    assert issubclass(SpecError, SplitpointError)
    assert issubclass(CodecError, SplitpointError)
