"""Thousands of damaged payloads: a `CodecError` or an array of the right shape, nothing else."""

import random

import numpy as np
import pytest
from splitpoint.codec import CodecError, TensorSpec, codec_named, codec_of_tensor
from splitpoint.codec.simple.entropy import compress, decompress_exactly

INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
FLOATS = TensorSpec(name="x", dtype="float32", shape=(1, 3, 5, 5), batch_dim=0)
PICTURE = TensorSpec(name="x", dtype="uint8", shape=(1, 10, 12, 3), batch_dim=0)
BOOLS = TensorSpec(name="x", dtype="bool", shape=(2, 7), batch_dim=1)
BATCH = 2


def mutate(rng, data, other):
    """One to three random edits; `other` is a valid payload to splice from."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 16)))
        match rng.randrange(9):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(data):
                data[at] = rng.choice(INTERESTING)
            case 3 if at < min(len(data), 24):  # headers deserve more
                data[at] = rng.randrange(256)
            case 4:
                del data[at:end]
            case 5:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
            case 6:
                data[at:end] = rng.randbytes(end - at)
            case 7:
                del data[at:]
            case _:
                data[at:] = other[rng.randrange(len(other)) :]
        if not data:
            break
    return bytes(data)


def valid_payloads(codec, spec):
    rng = np.random.default_rng(1)
    noise = rng.random(spec.shape_at(BATCH)) * (1 if spec.dtype == "float32" else 256)
    arrays = [noise, np.round(noise / 64), np.zeros_like(noise)]
    return [codec.encode(array.astype(spec.numpy_dtype), spec) for array in arrays]


@pytest.mark.parametrize(
    ("name", "spec", "count"),
    [
        ("raw", FLOATS, 3000),
        ("raw", BOOLS, 3000),
        ("fp16", FLOATS, 3000),
        ("q8", FLOATS, 5000),
        ("q4", FLOATS, 5000),
        ("jpeg", PICTURE, 3000),
        ("webp", PICTURE, 3000),
        ("png", PICTURE, 3000),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "dtype", None),
)
def test_mutated_payload(name, spec, count):
    codec = codec_named(name)
    assert codec_of_tensor(codec, spec) is codec
    payloads = valid_payloads(codec, spec)
    for payload in payloads:
        assert codec.decode(payload, spec, BATCH).shape == spec.shape_at(BATCH)
    rng = random.Random(name)
    refused = 0
    for _ in range(count):
        damaged = mutate(rng, rng.choice(payloads), rng.choice(payloads))
        try:
            decoded = codec.decode(damaged, spec, BATCH)
        except CodecError:
            refused += 1
            continue
        assert decoded.shape == spec.shape_at(BATCH)
        assert decoded.dtype == spec.numpy_dtype
    assert count * 0.1 < refused < count * 0.999


@pytest.mark.parametrize("name", ["q8", "q4"])
def test_mutated_content_of_a_sound_frame(name):
    """The damage is inside what zstd carries: ranges and symbols of any value."""
    codec, rng = codec_named(name), random.Random(name)
    noise = np.random.default_rng(1).normal(0, 1, FLOATS.shape_at(BATCH)).astype(np.float32)
    size = BATCH * (8 * 3 + (75 if name == "q8" else 38))
    plain = decompress_exactly(codec.encode(noise, FLOATS), size)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(plain)
        for _ in range(rng.choice((1, 4, 40))):
            damaged[rng.randrange(size)] = rng.choice((*INTERESTING, rng.randrange(256)))
        try:
            decoded = codec.decode(compress(bytes(damaged)), FLOATS, BATCH)
        except CodecError:
            refused += 1
            continue
        assert decoded.shape == FLOATS.shape_at(BATCH)
        assert decoded.dtype == np.float32
        assert not np.isnan(decoded).any()
    assert 0 < refused < 3000
