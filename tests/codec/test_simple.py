"""Codecs without tables: what all keep to, and the plain ones to the bit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from float_tensors import FLOAT_CODECS, spec_of, specs, values_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from splitpoint.codec import (
    CODECS,
    DTYPES,
    Codec,
    CodecError,
    SpecError,
    codec_named,
    codec_of_tensor,
    codecs_for,
)


def test_table_of_codecs():
    assert list(CODECS) == ["raw", "fp16", "q8", "q4", "jpeg", "webp", "png"]
    for name, codec in CODECS.items():
        assert codec.name == name
        assert codec_named(name) is codec
        assert isinstance(codec, Codec)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (spec_of((1, 3)), ["raw", "fp16", "q8", "q4"]),
        (spec_of((1, 8, 8, 3), dtype="uint8"), ["raw", "jpeg", "webp", "png"]),
        (spec_of((1, 3, 8, 8), dtype="uint8"), ["raw"]),
        *((spec_of((1, 3), dtype=dtype), ["raw"]) for dtype in DTYPES if dtype != "float32"),
    ],
    ids=str,
)
def test_who_carries_what(spec, names):
    assert codecs_for([spec]) == names
    assert codecs_for([spec, spec_of((1,), dtype="bool")]) == names
    for codec in CODECS.values():
        carrier = codec_of_tensor(codec, spec)
        assert carrier.name == (codec.name if codec.name in names else "raw")


@pytest.mark.parametrize("name", FLOAT_CODECS)
def test_encode_checks_the_array(name):
    spec = spec_of((2, 3))
    for array in (np.zeros((2, 3)), np.zeros((3, 3), np.float32), np.zeros(6, np.float32)):
        with pytest.raises(SpecError):
            codec_named(name).encode(array, spec)


@given(specs(), st.integers(1, 3), st.sampled_from(FLOAT_CODECS), st.integers(0, 99))
def test_samples_do_not_touch_each_other(spec, batch, name, seed):
    """A batch decodes to what its samples decode to alone."""
    codec, array = codec_named(name), values_of("normal", seed, spec.shape_at(batch))
    together = codec.decode(codec.encode(array, spec), spec, batch)
    alone = [
        codec.decode(codec.encode(sample, spec), spec, 1)
        for sample in np.split(array, batch, axis=spec.batch_dim)
    ]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=spec.batch_dim))


@given(specs(), st.integers(1, 3), st.sampled_from(FLOAT_CODECS), st.integers(0, 99))
def test_memory_order_does_not_matter(spec, batch, name, seed):
    codec, array = codec_named(name), values_of("normal", seed, spec.shape_at(batch))
    payload = codec.encode(array, spec)
    assert codec.encode(np.asfortranarray(array), spec) == payload
    assert codec.encode(np.flip(np.flip(array).copy()), spec) == payload


@given(specs(), st.integers(1, 3), st.sampled_from(FLOAT_CODECS), st.integers(0, 2**32 - 1))
def test_no_payload_exceeds_its_bound(spec, batch, name, seed):
    """Random bits do not compress: the worst case of the entropy stage."""
    codec, array = codec_named(name), values_of("normal", seed, spec.shape_at(batch))
    assert 0 < len(codec.encode(array, spec)) <= codec.max_payload_bytes(spec, batch)


@pytest.mark.parametrize("name", FLOAT_CODECS)
def test_bound_holds_for_large_noise(name):
    spec = spec_of((1, 600_001))
    codec, array = codec_named(name), np.random.default_rng(0).random((1, 600_001), np.float32)
    assert len(codec.encode(array, spec)) <= codec.max_payload_bytes(spec, 1)


@pytest.mark.parametrize("name", FLOAT_CODECS)
@pytest.mark.parametrize("batch", [1, 3])
def test_payload_of_another_length(name, batch):
    spec, codec = spec_of((1, 5)), codec_named(name)
    payload = codec.encode(values_of("normal", 1, (batch, 5)), spec)
    for wrong in (b"", payload[:-1], payload[1:], payload + b"\0", payload * 2):
        with pytest.raises(CodecError):
            codec.decode(wrong, spec, batch)
    for other in (batch + 1, batch + 2):
        with pytest.raises(CodecError):
            codec.decode(payload, spec, other)
    with pytest.raises(CodecError):
        codec.decode(payload, spec_of((1, 8)), batch)


@pytest.mark.parametrize("name", FLOAT_CODECS)
def test_codecs_are_safe_to_share_between_threads(name):
    spec, codec = spec_of((1, 100_000)), codec_named(name)
    arrays = [values_of("normal", seed, (1, 100_000)) for seed in range(4)]

    def roundtrip(number):
        return codec.decode(codec.encode(arrays[number % 4], spec), spec, 1)

    expected = [roundtrip(number) for number in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for number, decoded in enumerate(pool.map(roundtrip, range(64))):
            np.testing.assert_array_equal(decoded, expected[number % 4])


# --- raw ---


@given(st.sampled_from(list(DTYPES)).flatmap(specs), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_raw_is_bit_exact(spec, batch, seed):
    """Random bits make every NaN, infinity and denormal."""
    data = np.random.default_rng(seed).bytes(spec.nbytes_at(batch))
    if spec.dtype == "bool":
        data = bytes(byte & 1 for byte in data)
    array = np.frombuffer(data, spec.numpy_dtype).reshape(spec.shape_at(batch))
    raw = codec_named("raw")
    payload = raw.encode(array, spec)
    assert payload == data
    assert len(payload) == raw.max_payload_bytes(spec, batch)
    decoded = raw.decode(payload, spec, batch)
    assert decoded.tobytes() == data
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)


def test_raw_is_little_endian_in_c_order():
    payload = codec_named("raw").encode(
        np.array([[1, 256], [-2, 3]], np.int32, order="F"), spec_of((1, 2), dtype="int32")
    )
    assert payload.hex() == "0100000000010000feffffff03000000"


@pytest.mark.parametrize("byte", [2, 127, 128, 255])
def test_raw_refuses_bytes_that_are_no_booleans(byte):
    spec = spec_of((1, 4), dtype="bool")
    raw = codec_named("raw")
    assert raw.decode(b"\0\1\1\0", spec, 1).tolist() == [[False, True, True, False]]
    with pytest.raises(CodecError):
        raw.decode(bytes([0, 1, byte, 0]), spec, 1)


# --- fp16 ---


@given(specs(), st.integers(1, 3), st.data())
def test_fp16_is_within_half_precision(spec, batch, data):
    elements = st.floats(width=32) | st.floats(-70000, 70000, width=32)
    array = data.draw(hnp.arrays(np.float32, spec.shape_at(batch), elements=elements))
    fp16 = codec_named("fp16")
    finite = np.isfinite(array)
    if (abs(array[finite]) >= 65520).any():  # rounds to 65536, which half floats do not have
        with pytest.raises(CodecError, match="raw"):
            fp16.encode(array, spec)
        return
    payload = fp16.encode(array, spec)
    assert len(payload) == 2 * array.size <= fp16.max_payload_bytes(spec, batch)
    decoded = fp16.decode(payload, spec, batch)
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(decoded[~finite], array[~finite])  # the same NaN and infinities
    assert (np.signbit(decoded) == np.signbit(array))[finite].all()
    error = abs(decoded[finite].astype(np.float64) - array[finite])
    assert (error <= np.maximum(2.0**-11 * abs(array[finite]), 2.0**-25)).all()


@pytest.mark.parametrize(
    ("value", "fits"),
    [(65504, True), (65519.996, True), (65520, False), (-65520, False), (1e38, False)],
)
def test_fp16_overflow(value, fits):
    array, spec = np.array([[0, value]], np.float32), spec_of((1, 2))
    fp16 = codec_named("fp16")
    if fits:
        assert fp16.decode(fp16.encode(array, spec), spec, 1).tolist() == [[0, 65504]]
    else:
        with pytest.raises(CodecError):
            fp16.encode(array, spec)


def test_fp16_decodes_every_half_float_silently():
    halves = np.arange(65536, dtype="<u2")
    fp16, spec = codec_named("fp16"), spec_of((1, 65536))
    decoded = fp16.decode(halves.tobytes(), spec, 1)
    np.testing.assert_array_equal(decoded[0], halves.view("<f2").astype(np.float32))
    np.testing.assert_array_equal(
        np.frombuffer(fp16.encode(decoded, spec), "<f2"), halves.view("<f2")
    )


def test_fp16_keeps_every_kind_of_nan():
    """Signalling NaN whose payload bits are all in the half that is cut off stay NaN."""
    bits = np.array([[0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF]], np.uint32)
    fp16, spec = codec_named("fp16"), spec_of((1, 4))
    assert np.isnan(fp16.decode(fp16.encode(bits.view(np.float32), spec), spec, 1)).all()
