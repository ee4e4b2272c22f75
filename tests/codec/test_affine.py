"""q8 and q4: half a step of error, their layout, and what they refuse."""

import math

import numpy as np
import pytest
from float_tensors import FINITE, FLOAT_CODECS, FLT_MAX, SMALLEST_STEP, spec_of, specs, values_of
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from splitpoint.codec import (
    CodecError,
    codec_named,
)
from splitpoint.codec.simple.affine import channel_axis
from splitpoint.codec.simple.entropy import compress, decompress_exactly


def groups(array, spec, batch):
    """`(minimum, step numerator)` of each value's sample and channel, as float64, broadcast."""
    low, high = np.empty(array.shape), np.empty(array.shape)
    factor, dim, axis = spec.shape[spec.batch_dim], spec.batch_dim, channel_axis(spec)
    others = tuple(i for i in range(array.ndim) if i != axis)
    for sample in range(batch):
        part = (slice(None),) * dim + (slice(sample * factor, (sample + 1) * factor),)
        low[part] = array[part].min(axis=others, keepdims=True)
        high[part] = array[part].max(axis=others, keepdims=True)
    return low, high


def assert_within_half_a_step(codec, array, spec, batch):
    """The promise of `Affine`, with the rounding of float32 arithmetic on top."""
    low, high = groups(array, spec, batch)
    try:
        payload = codec.encode(array, spec)
    except CodecError:
        # Only what is at the very edge of float32 may be refused.
        assert (high - low).max() > FLT_MAX * 0.999999 or high.max() > FLT_MAX * 0.999999
        return
    assert len(payload) <= codec.max_payload_bytes(spec, batch)
    decoded = codec.decode(payload, spec, batch)
    assert decoded.shape == array.shape
    assert decoded.dtype == np.float32
    step = (high - low) / (2**codec.bits - 1)
    allowed = step * 0.5003 + 2.0**-22 * np.maximum(abs(low), abs(high)) + 1e-44
    allowed = np.where(step <= SMALLEST_STEP * 1.0001, np.maximum(allowed, high - low), allowed)
    assert (abs(decoded.astype(np.float64) - array) <= allowed).all()


@pytest.mark.parametrize(
    ("shape", "batch_dim", "axis"),
    [
        ((1, 8, 4, 4), 0, 1),  # [batch, channels, height, width]
        ((1, 7, 7, 96), 0, 3),  # [batch, height, width, channels]
        ((1, 8, 8, 8), 0, 1),
        ((1, 8, 3, 5), 0, None),  # 15 values are too few for a range
        ((1, 8, 2, 8), 0, 1),  # 16 are enough
        ((4, 8, 2, 2), 0, 1),  # those of the batch factor count
        ((8, 1, 4, 4), 1, None),  # the axis is the batch's
        ((1, 49, 96), 0, 2),
        ((64, 49, 96), 0, 2),
        ((1, 15, 96), 0, None),
        ((16, 5, 1), 2, None),
        ((1, 1000), 0, None),
        ((1000,), 0, None),
        ((1, 2, 3, 4, 5), 0, None),
    ],
)
def test_channel_axis(shape, batch_dim, axis):
    assert channel_axis(spec_of(shape, batch_dim)) == axis


@given(
    specs(),
    st.integers(1, 3),
    st.sampled_from(["q8", "q4"]),
    st.sampled_from(list(FINITE)),
    st.integers(0, 2**32 - 1),
)
@example(spec_of((64, 49, 96)), 2, "q8", "normal", 0)
@example(spec_of((64, 49, 96)), 2, "q4", "relu", 0)
@example(spec_of((2, 7, 7, 33)), 3, "q4", "normal", 0)
@example(spec_of((5, 4, 4, 3), 3), 3, "q4", "normal", 0)
@example(spec_of((4, 32, 3), 1), 3, "q8", "normal", 0)
@example(spec_of((3, 11)), 1, "q4", "exponents", 0)
def test_affine_error_is_half_a_step(spec, batch, name, kind, seed):
    array = values_of(kind, seed, spec.shape_at(batch))
    assert_within_half_a_step(codec_named(name), array, spec, batch)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 7)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.sampled_from(["q8", "q4"]),
)
@example(np.array([[1e34, FLT_MAX]], np.float32), "q8")
@example(np.array([[1e35, FLT_MAX]], np.float32), "q4")
@example(np.array([[0, FLT_MAX]], np.float32), "q8")
@example(np.array([[-FLT_MAX, 0]], np.float32), "q4")
@example(np.array([[1e-45, 0, -1e-45]], np.float32), "q4")
def test_affine_holds_for_any_finite_values(array, name):
    batch, extent = array.shape
    assert_within_half_a_step(codec_named(name), array, spec_of((1, extent)), batch)


@pytest.mark.parametrize("name", ["q8", "q4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 4)])
def test_affine_refuses_what_is_not_finite(name, value, shape):
    codec, spec = codec_named(name), spec_of((1, *shape[1:]))
    for position in (0, -1):
        array = np.zeros(shape, np.float32)
        assert codec.encode(array, spec)
        array.flat[position] = value
        with pytest.raises(CodecError, match="raw"):
            codec.encode(array, spec)
    with pytest.raises(CodecError):
        codec.encode(np.full(shape, value, np.float32), spec)


@pytest.mark.parametrize("name", ["q8", "q4"])
def test_affine_refuses_signalling_nan_without_a_warning(name):
    array = np.array([[0x7F800001, 0, 0x3F800000]], np.uint32).view(np.float32)
    with pytest.raises(CodecError):
        codec_named(name).encode(array, spec_of((1, 3)))


@pytest.mark.parametrize("name", ["q8", "q4"])
def test_affine_refuses_a_range_beyond_float32(name):
    codec, spec = codec_named(name), spec_of((1, 2))
    with pytest.raises(CodecError, match="range"):
        codec.encode(np.array([[-2e38, 2e38]], np.float32), spec)
    # One such sample is enough, and a channel's range is its own.
    with pytest.raises(CodecError):
        codec.encode(np.array([[0, 1], [-2e38, 2e38]], np.float32), spec)
    apart = np.zeros((1, 2, 4, 4), np.float32)
    apart[0] = np.array([-2e38, 2e38], np.float32)[:, None, None]
    maps = spec_of((1, 2, 4, 4))
    np.testing.assert_array_equal(codec.decode(codec.encode(apart, maps), maps, 1), apart)


@pytest.mark.parametrize("name", ["q8", "q4"])
@pytest.mark.parametrize("value", [0, -0.1, 1e38, -FLT_MAX, 1e-45, 12345.678])
def test_affine_constants_are_exact(name, value):
    codec, spec = codec_named(name), spec_of((1, 3, 4, 5))
    array = np.full((2, 3, 4, 5), value, np.float32)
    np.testing.assert_array_equal(codec.decode(codec.encode(array, spec), spec, 2), array)


@pytest.mark.parametrize("name", ["q8", "q4"])
def test_affine_extremes_of_each_channel_are_kept(name):
    codec, spec = codec_named(name), spec_of((1, 4, 6, 6))
    array = values_of("normal", 5, (3, 4, 6, 6)) * np.float32([1, 10, 100, 1e-3])[:, None, None]
    decoded = codec.decode(codec.encode(array, spec), spec, 3)
    np.testing.assert_array_equal(decoded.min((2, 3)), array.min((2, 3)))
    np.testing.assert_allclose(decoded.max((2, 3)), array.max((2, 3)), rtol=1e-5)


def plain(low, step, symbols):
    return np.array([*low, *step], "<f4").tobytes() + bytes.fromhex(symbols)


def test_layout_of_q4_is_frozen():
    spec = spec_of((1, 5))
    array = np.array([[0, 1, 2, 3, 15], [10, 25, 10, 11, 12]], np.float32)
    expected = plain([0, 10], [1, 1], "0123f00f0120")
    q4 = codec_named("q4")
    assert decompress_exactly(q4.encode(array, spec), 22) == expected
    np.testing.assert_array_equal(q4.decode(compress(expected), spec, 2), array)


@pytest.mark.parametrize(
    ("shape", "symbols"),
    [
        ((1, 2, 4, 4), bytes(range(16)) + bytes(range(240, 256))),  # channels are in order
        ((1, 16, 2), bytes(range(0, 32, 2)) + bytes(range(1, 32, 2))),  # they are the last axis
    ],
)
def test_layout_of_q8_is_frozen(shape, symbols):
    """Minima, steps, then the symbols channel by channel."""
    flat = bytes(range(16)) + bytes(range(240, 256)) if len(shape) == 4 else bytes(range(32))
    array = np.frombuffer(flat, np.uint8).astype(np.float32).reshape(shape)
    scaled = [np.frombuffer(part, np.uint8) for part in (symbols[:16], symbols[16:])]
    step = [np.float32(part.max() - part.min()) / np.float32(255) for part in scaled]
    codes = [np.rint((part - part.min()) / size) for part, size in zip(scaled, step, strict=True)]
    expected = plain([part.min() for part in scaled], step, "") + b"".join(
        code.astype(np.uint8).tobytes() for code in codes
    )
    q8, spec = codec_named("q8"), spec_of(shape)
    assert decompress_exactly(q8.encode(array, spec), len(expected)) == expected
    np.testing.assert_allclose(q8.decode(compress(expected), spec, 1), array, atol=0.04)


@pytest.mark.parametrize("name", ["q8", "q4"])
@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_affine_refuses_a_range_that_is_not_finite(name, field, value):
    ranges = [0, 0, 1, 1]
    codec, spec = codec_named(name), spec_of((1, 2))
    symbols = "00" * (4 if name == "q8" else 2)
    assert codec.decode(compress(plain(ranges, [], symbols)), spec, 2).tolist() == [[0, 0]] * 2
    ranges[field] = value
    with pytest.raises(CodecError, match="finite"):
        codec.decode(compress(plain(ranges, [], symbols)), spec, 2)


def test_hostile_range_harms_its_own_sample_only():
    q8, spec = codec_named("q8"), spec_of((1, 2))
    decoded = q8.decode(compress(plain([1, 5], [FLT_MAX, 1], "00020007")), spec, 2)
    assert decoded.tolist() == [[1, math.inf], [5, 12]]


def test_fewer_bits_make_smaller_payloads():
    spec = spec_of((1, 16, 14, 14))
    array = values_of("relu", 3, (1, 16, 14, 14))
    sizes = [len(codec_named(name).encode(array, spec)) for name in FLOAT_CODECS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0] / 4
    assert sizes[3] < sizes[0] / 8
