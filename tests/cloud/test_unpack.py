"""The last stage of decoding in torch makes what numpy makes of the same payloads.

Here it runs on the CPU: the copies to a GPU are all that differs there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fkt_tables import MAP, SPECS, codec_of, like_calibration, slow_stream, spec_of, table_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from splitpoint.cloud.compute.unpack import Unpacker, together
from splitpoint.cloud.compute.values import Values
from splitpoint.cloud.gpu.gpu import filled
from splitpoint.codec import Array, CodecError, Packed, Packing, TensorSpec, codec_named
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.packed import PackedFkt
from splitpoint.codec.fkt.table import FktTable, Level, banded_places
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from splitpoint.codec.fkt.video import FktVideo
from splitpoint.codec.simple.entropy import compress
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame, FrameError

CPU = torch.device("cpu")
OUTLIER = np.dtype([("index", "<u4"), ("value", "<i4")])


def unpacked(packed: Packed, unpacker: Unpacker | None = None) -> Array:
    """As a chain on the CPU makes it."""
    parts = [filled(part) for part in packed.parts]
    tensor = (unpacker or Unpacker(CPU)).tensor(packed, parts)
    assert tensor.is_contiguous()
    found: Array = tensor.numpy()
    return found


def assert_close(found: Array, expected: Array) -> None:
    """But for the order in which float32 sums are added up."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    """One to five dimensions, the batch anywhere, its factor often above 1."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)))
    return spec_of(shape, draw(st.integers(0, len(shape) - 1)))


# --- symbols and ranges ---


@settings(deadline=None, max_examples=200)
@given(specs(), st.integers(1, 4), st.sampled_from(["q8", "q4"]), st.integers(0, 99))
@example(spec_of((1, 8, 6, 6)), 3, "q8", 0)  # channels first
@example(spec_of((1, 8, 6, 6)), 3, "q4", 0)
@example(spec_of((1, 7, 7, 33)), 2, "q4", 0)  # channels last
@example(spec_of((64, 49, 5)), 2, "q4", 0)  # windows in the batch
@example(spec_of((5, 24, 1), 2), 3, "q8", 0)
@example(spec_of((1, 53)), 2, "q4", 0)  # an odd number of nibbles
def test_affine_is_bit_exact(spec: TensorSpec, batch: int, name: str, seed: int) -> None:
    rng, codec = np.random.default_rng(seed), codec_named(name)
    array = rng.normal(rng.normal(0, 5), rng.choice([1e-6, 1, 1e5]), spec.shape_at(batch))
    payload = codec.encode(array.astype(np.float32).clip(-2), spec)
    expected = codec.decode(payload, spec, batch)
    assert isinstance(codec, Packing)
    found = unpacked(codec.packed(payload, spec, batch))
    assert found.shape == spec.shape_at(batch)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("name", "share"), [("q8", 1 / 4), ("q4", 1 / 8)])
def test_affine_takes_its_bits_to_the_device(name: str, share: float) -> None:
    spec, codec = spec_of((1, 16, 20, 20)), codec_named(name)
    array = np.random.default_rng(0).normal(size=spec.shape_at(2)).astype(np.float32)
    packed = codec.packed(codec.encode(array, spec), spec, 2)
    ranges = 2 * 2 * 16 * 4
    assert sum(part.nbytes for part in packed.parts) == share * array.nbytes + ranges


def test_affine_range_beyond_float32_stays_in_its_sample() -> None:
    """Damage that the ranges' check lets pass, since each end of them is finite."""
    spec, codec = spec_of((1, 4)), codec_named("q8")
    ranges = np.array([0, 1, 3e38, 1], np.float32)  # minima, then steps
    payload = compress(ranges.tobytes() + bytes([255, 0, 1, 2, 0, 1, 2, 3]))
    expected = codec.decode(payload, spec, 2)
    assert np.isinf(expected[0]).any()
    assert np.isfinite(expected[1]).all()
    np.testing.assert_array_equal(unpacked(codec.packed(payload, spec, 2)), expected)


# --- coefficients ---


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_fkt_in_torch_is_as_in_numpy(spec: TensorSpec) -> None:
    unpacker = Unpacker(CPU)
    for level in range(1, table_of(spec).levels + 1):
        codec = codec_of(spec, level)
        for batch in (1, 3):
            payload = codec.encode(like_calibration(spec, batch), spec)
            packed = codec.packed(payload, spec, batch)
            assert packed.values.nbytes <= spec.nbytes_at(batch) / 2
            assert_close(unpacked(packed, unpacker), codec.decode(payload, spec, batch))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(SPECS.values())),
    st.integers(1, 3),
    st.integers(0, 999),
    st.sampled_from([20, 300, 1e4]),
    st.data(),
)
def test_fkt_outliers_are_at_their_places(
    spec: TensorSpec, batch: int, seed: int, height: float, data: st.DataObject
) -> None:
    """A single value far out stirs many coefficients that are not sent otherwise."""
    codec = codec_of(spec, data.draw(st.integers(1, table_of(spec).levels)))
    array = like_calibration(spec, batch, seed)
    array.flat[seed % array.size] = height
    try:
        payload = codec.encode(array, spec)
    except CodecError:
        return  # it would grow
    packed = codec.packed(payload, spec, batch)
    assert_close(unpacked(packed), codec.decode(payload, spec, batch))


def test_a_repeated_outlier_means_its_last_everywhere() -> None:
    table = table_of(MAP)
    level = Level.of(table, 1)
    outliers = [
        np.array([(5, 9), (7, 3), (5, -4), (5, 2)], OUTLIER),
        np.array([], OUTLIER),
        np.array([(5, 1), (int(level.order[0]), 6)], OUTLIER),  # this one is sent besides
    ]
    values = np.arange(3 * len(level.order)).reshape(3, -1)
    packed = PackedFkt.of(table, level, values, outliers)
    size = table.log_scale.size
    held = packed.coefficients().reshape(3, size) / np.float32(level.step)
    fifth, seventh = banded_places(table, np.array([5, 7]))
    assert held[0, [fifth, seventh]].tolist() == [2, 3]
    assert held[2, [fifth, level.banded[0]]].tolist() == [1, 6]
    assert_close(unpacked(packed), packed.unpack())


@pytest.mark.parametrize(
    ("value", "is_peak"),
    [
        (0, False),
        (32_767, False),
        (-32_768, False),
        (32_768, True),
        (-32_769, True),
        (65_536, True),  # 0 in its lower half
        ((1 << 53) - 1, True),  # what a stream's values are bounded by
    ],
)
def test_values_beyond_their_type_travel_apart(value: int, is_peak: bool) -> None:
    table = table_of(MAP)
    level = Level.of(table, table.levels)
    values = np.random.default_rng(0).integers(-99, 99, (3, len(level.order)))
    values[1, 4] = value
    packed = PackedFkt.of(table, level, values, [np.array([], OUTLIER)] * 3)
    assert packed.values.dtype == np.int16
    assert len(packed.parts) == (3 if is_peak else 1)
    held = packed.coefficients().reshape(3, -1)[:, level.banded]
    np.testing.assert_array_equal(held, values.astype(np.float32) * np.float32(packed.scale))
    assert_close(unpacked(packed), packed.unpack())


def test_a_level_that_sends_nothing() -> None:
    table = table_of(MAP)
    nothing = np.zeros(0, np.int32)
    level = Level(
        step=1.0,
        order=nothing,
        classes=np.zeros(0, np.uint8),
        unsent=np.arange(table.log_scale.size, dtype=np.int32),
        banded=nothing,
        unsent_banded=np.arange(table.log_scale.size, dtype=np.int32),
        lanes=1,
    )
    packed = PackedFkt.of(table, level, np.zeros((2, 0), np.int64), [np.array([], OUTLIER)] * 2)
    assert_close(unpacked(packed), packed.unpack())


def test_tables_are_on_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, orders = [], []
    tensor = torch.tensor

    def noted(values: Array, **kind: Any) -> torch.Tensor:
        if kind.get("dtype") is torch.int64:
            orders.append(values)
        return tensor(values, **kind)

    def counted(table: FktTable, device: torch.device) -> TorchInverse:
        made.append(table)
        return TorchInverse(table, device)

    monkeypatch.setattr("splitpoint.cloud.compute.unpack.TorchInverse", counted)
    unpacker, array = Unpacker(CPU), like_calibration(MAP)
    monkeypatch.setattr(torch, "tensor", noted)
    for level in (1, 2, 1, 2):
        codec = codec_of(MAP, level)
        unpacked(codec.packed(codec.encode(array, MAP), MAP, 1), unpacker)
    assert made == [table_of(MAP)]
    assert len(orders) == 2  # one for each level


def test_stream_of_frames_in_torch_is_as_in_numpy() -> None:
    """Key frames and differences; what is kept for the next frame never leaves the host."""
    codec = FktVideo("fkt-video@4", codec_of(MAP, 4).coders)
    sender, one, other = codec.new_stream(), codec.new_stream(), codec.new_stream()
    frames = slow_stream(MAP, 12, change=0.05)
    frames[7] = frames[7].copy()
    frames[7][0, 0, 0, 0] = 300  # outliers
    for frame in frames:
        payload = sender.encode(frame, MAP)
        assert_close(unpacked(one.packed(payload, MAP, 1)), other.decode(payload, MAP, 1))
    assert isinstance(codec, Packing)
    assert isinstance(sender, Packing)


# --- several requests ---


def packed_request(spec: TensorSpec, level: int, batch: int, seed: int) -> Values:
    codec, array = codec_of(spec, level), like_calibration(spec, batch, seed)
    if seed % 2:
        array.flat[seed % array.size] = 40
    return {spec.name: codec.packed(codec.encode(array, spec), spec, batch)}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_neighbours_at_one_level_are_transformed_together(spec: TensorSpec) -> None:
    level = table_of(spec).levels
    requests = [
        packed_request(spec, level, 1, 1),
        packed_request(spec, level, 3, 2),
        packed_request(spec, level, 2, 5),
        packed_request(spec, 1, 1, 4),
        {spec.name: like_calibration(spec, 2)},
        {spec.name: like_calibration(spec, 1)},
        packed_request(spec, level, 1, 3),
        packed_request(spec, level, 1, 4),
    ]
    joined = together(requests)
    assert len(joined) == 5
    expected, found = (
        [
            v if isinstance(v, np.ndarray) else unpacked(v)
            for values in some
            for v in values.values()
        ]
        for some in (requests, joined)
    )
    assert_close(np.concatenate(found, spec.batch_dim), np.concatenate(expected, spec.batch_dim))


def test_tensors_that_are_not_all_packed_stay_apart() -> None:
    counts = spec_of((1, 3), name="counts")
    requests = [
        packed_request(MAP, 1, 1, seed) | {"counts": np.ones(counts.shape, np.float32)}
        for seed in (1, 2)
    ]
    assert together(requests) == requests
    assert together([]) == []


# --- damage ---


def outcome(read: Callable[[], dict[str, Any]]) -> str | dict[str, Any]:
    """The status and words of the error, or what was read."""
    try:
        return read()
    except FrameError as error:
        return f"{pb.Status.Name(error.status)}: {error}"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["q8", "q4", "fkt", "fkt-video"])
def test_damage_is_refused_in_the_same_words(name: str, batch: int) -> None:
    spec, rng = spec_of((1, 6, 8, 8)), random.Random(f"{name} {batch}")
    fkt = codec_of(spec, 2)
    codecs = {"fkt": fkt, "fkt-video": FktVideo("fkt-video@2", fkt.coders)}
    codec = codecs.get(name) or codec_named(name)
    frames = slow_stream(spec, 3, change=0.1)
    sender = codec.new_stream() if isinstance(codec, FktVideo) else codec
    if name == "fkt-video":
        payloads = [sender.encode(frame, spec) for frame in frames]
    else:
        payloads = [sender.encode(np.concatenate([frame] * batch), spec) for frame in frames]
    refused = 0
    for _ in range(400):
        data = bytearray(rng.choice(payloads))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(min(len(data), rng.choice((8, 10_000))))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        frame = CheckedFrame(
            id=1, boundary=0, codec=codec, batch=batch, payloads=(bytes(data),), specs=(spec,),
            budget_ms=0,
        )  # fmt: skip
        expected, found = outcome(frame.decode), outcome(frame.packed)
        if isinstance(expected, str):
            refused += 1
            assert found == expected
        else:
            assert isinstance(found, dict)
            whole = unpacked(found[spec.name])
            if name in ("q8", "q4"):
                np.testing.assert_array_equal(whole, expected[spec.name])
            else:
                assert_close(whole, expected[spec.name])
    assert refused > 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["q8", "q4"])
def test_ranges_that_are_not_finite_never_reach_the_device(name: str, value: float) -> None:
    spec, codec = spec_of((1, 2)), codec_named(name)
    payload = compress(np.array([0, value], np.float32).tobytes() + bytes(2 if name == "q8" else 1))
    for read in (codec.decode, codec.packed):
        with pytest.raises(CodecError, match="not finite"):
            read(payload, spec, 1)


def test_a_transform_without_an_inverse_is_refused_before_the_device() -> None:
    table = table_of(MAP)
    flat = replace(table, forward=np.zeros_like(table.forward))
    codec = Fkt("fkt@1", {"x": CoefficientCoder(flat, 1)})
    payload = codec_of(MAP, 1).encode(like_calibration(MAP), MAP)
    for read in (codec.decode, codec.packed):
        with pytest.raises(CodecError, match="cannot be undone"):
            read(payload, MAP, 1)
