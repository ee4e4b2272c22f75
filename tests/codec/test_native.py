"""The loops in C give what numpy's give: payloads byte for byte, tensors bit for bit."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fkt_tables import SPECS, like_calibration, slow_stream, spec_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from splitpoint.codec import Array, CodecError, TensorSpec
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.loops import Loops
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.video import FktVideo
from splitpoint.codec.native import EXTENSION, why_not
from splitpoint.codec.native.extension import FUNCTIONS, LAYOUT, load
from splitpoint.codec.simple.affine_loops import NativeAffineLoops, NumpyAffineLoops

needs_c = pytest.mark.skipif(EXTENSION is None, reason=why_not())
PAIR: tuple[Loops, Loops] = (NumpyLoops(), NativeLoops(EXTENSION))


def coders(spec: TensorSpec, level: int) -> list[dict[str, CoefficientCoder]]:
    """The reference's, and those in C."""
    tables = [replace(table_of(spec), loops=loops) for loops in PAIR]
    return [{spec.name: CoefficientCoder(table, level)} for table in tables]


def outcome(work: Any, *given: Any) -> Any:
    """What it returns; or the error's class and message."""
    try:
        return work(*given)
    except CodecError as error:
        return type(error), str(error)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return bool(left == right)


shapes = st.sampled_from(list(SPECS.values()))
scales = st.sampled_from([0.0, 1e-3, 1.0, 2.0, 30.0, 1e3, 1e6])


def spiked(spec: TensorSpec, batch: int, seed: int, scale: float, height: float) -> Array:
    """Like those of calibration, but for its size and one value far out."""
    array = like_calibration(spec, batch, seed) * np.float32(scale)
    array.flat[seed % array.size] += np.float32(height)
    return array


@needs_c
@given(shapes, st.integers(1, 8), st.integers(1, 3), st.integers(0, 999), scales, scales)
def test_payloads_and_tensors_are_the_same(
    spec: TensorSpec, level: int, batch: int, seed: int, scale: float, height: float
) -> None:
    level = min(level, table_of(spec).levels)
    reference, fast = (Fkt("fkt", own) for own in coders(spec, level))
    array = spiked(spec, batch, seed, scale, height)
    payload = outcome(reference.encode, array, spec)
    assert outcome(fast.encode, array, spec) == payload
    if isinstance(payload, bytes):
        tensors = [codec.decode(payload, spec, batch) for codec in (reference, fast)]
        assert same(*tensors)


@needs_c
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", SPECS)
def test_what_cannot_be_carried_is_refused_in_the_same_words(name: str, value: float) -> None:
    spec = SPECS[name]
    array = like_calibration(spec, 1)
    array.flat[array.size // 2] = value
    answers = [outcome(Fkt("fkt", own).encode, array, spec) for own in coders(spec, 3)]
    assert answers[0] == answers[1]
    assert answers[0][0] is CodecError


@needs_c
@settings(max_examples=60, deadline=None)  # each is a stream, encoded and decoded by both
@given(shapes, st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.3, 1.0]), scales)
def test_streams_are_the_same(spec: TensorSpec, seed: int, change: float, scale: float) -> None:
    pair = [FktVideo("fkt-video", own).new_stream() for own in coders(spec, 4)]
    ends = [FktVideo("fkt-video", own).new_stream() for own in coders(spec, 4)]
    frames = slow_stream(spec, 4, change=change, seed=seed)
    frames[2] = frames[2] * np.float32(scale)
    for frame in frames:
        payload, again = (outcome(stream.encode, frame, spec) for stream in pair)
        assert payload == again
        if isinstance(payload, bytes):
            assert same(*(end.decode(payload, spec, 1) for end in ends))


def damaged(rng: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at:]
            case 3:
                data += rng.randbytes(rng.randrange(1, 9))
            case 4 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case _:
                data[at : at + 8] = rng.randbytes(rng.randrange(12))
    return bytes(data)


@needs_c
@pytest.mark.parametrize("name", SPECS)
def test_damage_is_refused_alike(name: str) -> None:
    """The same payloads, for the same reason; and what passes gives the same tensor."""
    spec, rng = SPECS[name], random.Random(name)
    reference, fast = (Fkt("fkt", own) for own in coders(spec, 4))
    payloads = [
        reference.encode(spiked(spec, 1, seed, scale, 9.0), spec)
        for seed in range(3)
        for scale in (0.0, 1.0, 2.0)
    ]
    refused = 0
    for _ in range(1_500):
        payload = damaged(rng, rng.choice(payloads))
        expected = outcome(reference.decode, payload, spec, 1)
        assert same(outcome(fast.decode, payload, spec, 1), expected), payload.hex()
        refused += not isinstance(expected, np.ndarray)
    assert refused > 500


@needs_c
def test_samples_of_a_batch_may_have_different_lanes() -> None:
    spec = spec_of((1, 40, 28, 28))
    (reference, fast) = (own[spec.name] for own in coders(spec, 4))
    samples = []
    for lanes, seed in ((150, 1), (900, 2), (150, 3), (1024, 4)):
        banded = reference.banded(like_calibration(spec, 1, seed))[0]
        magnitudes = reference.quantise(reference.sent(banded), reference.level.classes)
        samples.append(
            reference.write(magnitudes, reference.plan, lanes, reference.outliers(banded))
        )
        assert fast.write(magnitudes, fast.plan, lanes, fast.outliers(banded)) == samples[-1]
    assert same(reference.read(samples, reference.plan)[0], fast.read(samples, fast.plan)[0])


@needs_c
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(0, 40), st.integers(0, 999),
    st.sampled_from([0.0, 1e-38, 1.0, 1e20, 3e38]),
)  # fmt: skip
def test_affine_loops_are_the_same(
    batch: int, channels: int, values: int, seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    pair = (NumpyAffineLoops(), NativeAffineLoops(EXTENSION))
    rows = (rng.normal(0, 1, (batch, channels, values)) * size / 9).astype(np.float32)
    low = rng.normal(0, 1, (batch, channels, 1)).astype(np.float32) * np.float32(size / 9)
    scale = rng.random((batch, channels, 1)).astype(np.float32) * 30
    for top in (15, 255):
        with np.errstate(over="ignore", invalid="ignore"):
            assert same(*(loops.symbols(rows, low, scale, top) for loops in pair))
    symbols = rng.integers(0, 16, (batch, channels * values)).astype(np.uint8)
    packed = [loops.packed(symbols) for loops in pair]
    assert same(*packed)
    for loops in pair:
        assert same(loops.unpacked(packed[0], channels * values), symbols)
    whole = rng.integers(0, 256, rows.shape).astype(np.uint8)
    assert same(*(loops.values(whole, low, scale) for loops in pair))


@needs_c
def test_a_coder_serves_several_threads_at_once() -> None:
    spec = spec_of((1, 40, 28, 28))  # large enough for the loops to let the GIL go
    codec = Fkt("fkt", coders(spec, 6)[1])
    arrays = [like_calibration(spec, 1, seed) for seed in range(8)]
    expected = [codec.decode(codec.encode(array, spec), spec, 1) for array in arrays]
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(first, first + 40):
            array, wanted = arrays[turn % 8], expected[turn % 8]
            if not same(codec.decode(codec.encode(array, spec), spec, 1), wanted):
                wrong.append(turn)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_c
@pytest.mark.parametrize("function", FUNCTIONS)
def test_arrays_that_do_not_fit_are_refused(function: str) -> None:
    """Whatever lengths arrive, nothing is read or written beyond them."""
    rng, call = random.Random(function), getattr(EXTENSION, function)
    sizes = (0, 1, 2, 3, 4, 12, 16, 64, 480, 7_744, 16_388, 495_616)
    for _ in range(600):
        given: list[Any] = []
        for _ in range(rng.randrange(1, 13)):
            kind = rng.randrange(8)
            buffer = bytearray(rng.choice(sizes))
            given.append(
                (buffer, buffer, buffer, buffer, rng.randrange(-2, 300), 1.5, (), (b"",))[kind]
            )
        try:
            call(*given)
        except (TypeError, ValueError, BufferError, OverflowError):
            continue


# --- whether it is used ---


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (SimpleNamespace(), "of another version"),
        (SimpleNamespace(LAYOUT=LAYOUT + 1), f"layout {LAYOUT + 1}, not {LAYOUT}"),
        (SimpleNamespace(LAYOUT=LAYOUT), "it lacks write, read"),
    ],
)
def test_a_foreign_extension_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace, reason: str
) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: module)
    found, why = load()
    assert found is None
    assert reason in why
    assert "\n" not in why


def test_an_absent_extension_is_no_error() -> None:
    found, why = load("splitpoint.codec.native._nothing")
    assert found is None
    assert "not built" in why


def test_a_damaged_extension_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_damaged_loops.abi3.so").write_bytes(b"\x7fELF" + bytes(100))
    monkeypatch.syspath_prepend(tmp_path)
    found, why = load("_damaged_loops")
    assert found is None
    assert "damaged" in why
    assert "\n" not in why
