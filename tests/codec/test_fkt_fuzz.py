"""A hundred thousand damaged payloads: a `CodecError` or an array of the right shape.

No warning either, no endless loop, and no more memory than a multiple of the tensor's.
"""

from __future__ import annotations

import random
import struct
import tracemalloc

import numpy as np
import pytest
from fkt_tables import codec_of, like_calibration, spec_of, table_of
from splitpoint.codec import CodecError, TensorSpec
from splitpoint.codec.fkt.codec import Fkt

SMALL_MAP = spec_of((1, 6, 4, 4))
TOKENS = spec_of((1, 17, 6))
VECTOR = spec_of((1, 24))
INTERESTING = (0, 1, 2, 7, 8, 63, 64, 65, 0x7F, 0x80, 0xFE, 0xFF)
_HEAD = struct.Struct("<HH")
_OUTLIER = struct.Struct("<Ii")
MULTIPLE, SPARE = 60, 1 << 20  # of memory: times the tensor, and besides


def valid_payloads(codec: Fkt, spec: TensorSpec, batch: int) -> list[bytes]:
    """Usual ones, and some with outliers, of zeros, and of large values."""
    found = [codec.encode(like_calibration(spec, batch, 20_000 + i), spec) for i in range(6)]
    others = [np.zeros(spec.shape_at(batch), np.float32)]
    for scale in (0.0, 2.0, 5.0):
        spiked = like_calibration(spec, batch, 21_000)
        spiked.flat[3] = 7 * scale
        others += [spiked, like_calibration(spec, batch, 22_000) * np.float32(scale)]
    for array in others:
        try:
            found.append(codec.encode(array, spec))
        except CodecError:
            continue
    return found


def mutated(rng: random.Random, payloads: list[bytes]) -> bytes:
    """One valid payload after one to three changes of every kind there is."""
    data = bytearray(rng.choice(payloads))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(12):
            case 0 | 1 | 2 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 3 if at < len(data):
                data[at] = rng.choice(INTERESTING)
            case 4:
                del data[at:]
            case 5:
                data += rng.randbytes(rng.randrange(1, 20))
            case 6:
                data = bytearray(rng.randbytes(rng.randrange(120)))
            case 7:  # the head of one before the rest of another
                other = rng.choice(payloads)
                at = rng.choice((2, 4, at))
                data[at:] = other[at:]
            case 8 if len(data) >= 2:  # lanes
                lanes = rng.choice((*range(12), 63, 64, 65, 1024, 1025, rng.randrange(1 << 16)))
                data[:2] = struct.pack("<H", lanes)
            case 9 if len(data) >= 4:  # outliers that there are not
                data[2:4] = struct.pack("<H", rng.choice((1, 2, 3, 255, 2**16 - 1)))
            case 10 if len(data) >= 4:  # outliers of any value
                count = rng.randrange(1, 4)
                own = b"".join(
                    _OUTLIER.pack(rng.randrange(100), rng.randrange(-(2**31), 2**31))
                    for _ in range(count)
                )
                lanes, before = _HEAD.unpack_from(data)
                data[:4] = _HEAD.pack(lanes, min(before + count, 2**16 - 1)) + own
            case _:
                end = min(len(data), at + rng.choice((1, 2, 4, 16)))
                data[at:end] = rng.randbytes(rng.choice((0, 1, 2, end - at)))
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "level", "batch", "count"),
    [
        (SMALL_MAP, 1, 1, 30_000),
        (SMALL_MAP, 8, 1, 20_000),
        (TOKENS, 3, 2, 20_000),
        (VECTOR, 5, 1, 30_000),
    ],
    ids=["coarse map", "fine map", "tokens", "vector"],
)
def test_damaged_payload(spec: TensorSpec, level: int, batch: int, count: int) -> None:
    codec, rng = codec_of(spec, min(level, table_of(spec).levels)), random.Random(level)
    payloads, shape = valid_payloads(codec, spec, batch), spec.shape_at(batch)
    assert len(payloads) >= 6
    for payload in payloads:
        assert codec.decode(payload, spec, batch).shape == shape
    refused = 0
    for _ in range(count):
        try:
            decoded = codec.decode(mutated(rng, payloads), spec, batch)
        except CodecError:
            refused += 1
            continue
        assert decoded.shape == shape
        assert decoded.dtype == np.float32
    assert count * 0.5 < refused < count * 0.99


def test_every_bit_of_a_payload() -> None:
    """And every byte's every value."""
    codec = codec_of(VECTOR, 1)
    payload = codec.encode(like_calibration(VECTOR, 1), VECTOR)
    refused = 0
    for at in range(len(payload)):
        for value in range(256):
            damaged = payload[:at] + bytes([value]) + payload[at + 1 :]
            try:
                decoded = codec.decode(damaged, VECTOR, 1)
            except CodecError:
                refused += 1
                continue
            assert decoded.shape == VECTOR.shape
    assert refused > 256


def peak_of_decoding(codec: Fkt, spec: TensorSpec, batch: int, payload: bytes) -> int:
    tracemalloc.start()
    try:
        codec.decode(payload, spec, batch)
    except CodecError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("spec", [SMALL_MAP, spec_of((1, 16, 20, 20))], ids=["small", "large"])
def test_memory_is_bounded(spec: TensorSpec, batch: int) -> None:
    codec, rng = codec_of(spec, 2), random.Random(0)
    payloads = valid_payloads(codec, spec, batch)
    most = MULTIPLE * spec.nbytes_at(batch) + SPARE
    codec.decode(payloads[0], spec, batch)  # what is computed once is not counted
    hostile = [mutated(rng, payloads) for _ in range(40)]
    # As long as the wire lets a payload be, and claiming as much as it can.
    longest = codec.max_payload_bytes(spec, batch)
    for lanes in (1, 64, 1024, 2**16 - 1):
        for count in (0, 1, *(min(longest // 8 - n, 2**16 - 1) for n in (0, 1)), 2**16 - 1):
            hostile += [
                _HEAD.pack(lanes, count) + filler * (longest - 4)
                for filler in (b"\0", b"\xff", b"\x55")
            ]
    for payload in (*payloads, *hostile):
        assert peak_of_decoding(codec, spec, batch, payload) <= most


@pytest.mark.parametrize("batch", [2, 5])
def test_lengths_of_samples_that_do_not_fit(batch: int) -> None:
    codec = codec_of(SMALL_MAP, 1)
    payload = codec.encode(like_calibration(SMALL_MAP, batch), SMALL_MAP)
    (own,) = struct.unpack_from("<I", payload)
    for length in (0, 1, own - 1, own + 1, len(payload), len(payload) - 4, 2**31, 2**32 - 1):
        with pytest.raises(CodecError):
            codec.decode(struct.pack("<I", length) + payload[4:], SMALL_MAP, batch)
