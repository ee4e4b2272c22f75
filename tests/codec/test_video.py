"""Streams of frames: both ends agree, losses heal, and what stays the same costs little."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fkt_tables import coder_of, like_calibration, slow_stream, spec_of, table_of
from splitpoint.codec import Array, Codec, CodecError, CodecSet, TensorSpec
from splitpoint.codec.fkt import video
from splitpoint.codec.fkt.coefficients import MAX_ERROR_STEPS, CoefficientCoder
from splitpoint.codec.fkt.symbols import MAX_MAGNITUDE
from splitpoint.codec.fkt.video import DIFFERENCE, KEY, RINGS, FktVideo, KeyFrameNeeded, VideoState

SPEC = spec_of((1, 6, 8, 8))
LARGE = spec_of((1, 16, 14, 14))
LEVEL = 4
_HEAD_BYTES = 5


def ends(spec: TensorSpec = SPEC, level: int = LEVEL) -> tuple[VideoState, VideoState]:
    """An encoder and a decoder."""
    coder = coder_of(spec, level)
    return VideoState(coder), VideoState(coder)


def snapshot(state: VideoState) -> tuple[bytes, int, bool]:
    return state._kept.tobytes(), state.frame, state._ready


def assert_agree(one: VideoState, other: VideoState) -> None:
    np.testing.assert_array_equal(one._kept, other._kept)
    assert one.frame == other.frame


def assert_within_bound(state: VideoState, decoded: Array, array: Array) -> None:
    table, step = state.coder.table, state.coder.level.step
    assert decoded.shape == array.shape
    assert decoded.dtype == np.float32
    wanted = table.transform(table.grid.rows(array))
    found = table.transform(table.grid.rows(decoded))
    slack = 1e-4 * float(abs(wanted).max())
    assert (abs(found - wanted) <= MAX_ERROR_STEPS * step + slack).all()


# --- agreement ---


@pytest.mark.parametrize("change", [0.02, 0.5])
def test_both_ends_agree_over_a_thousand_frames_with_losses(change: float) -> None:
    frames = slow_stream(SPEC, 500, change=change)
    encoder, decoder = ends()
    rng, lost, healed, kinds = random.Random(1), False, 0, {KEY: 0, DIFFERENCE: 0}
    for array in frames:
        payload = encoder.encode(array, SPEC)
        kinds[payload[0]] += 1
        if rng.random() < 0.1:
            lost = True
            continue
        if lost and payload[0] == DIFFERENCE:
            before = snapshot(decoder)
            with pytest.raises(KeyFrameNeeded):
                decoder.packed(payload).unpack()
            assert snapshot(decoder) == before
            encoder.reset()
            healed += 1
            continue
        decoded = decoder.packed(payload).unpack()
        lost = False
        assert_agree(encoder, decoder)
        assert_within_bound(encoder, decoded, array)
    assert healed > 20
    assert kinds[DIFFERENCE] > 20
    assert kinds[KEY] >= healed


def test_reset_makes_the_next_frame_a_key_frame_that_heals() -> None:
    first, second, third, fourth = slow_stream(LARGE, 4, change=0.01)
    encoder, decoder = ends(LARGE)
    decoder.packed(encoder.encode(first, LARGE)).unpack()
    encoder.encode(second, LARGE)  # lost
    payload = encoder.encode(third, LARGE)
    assert payload[0] == DIFFERENCE
    with pytest.raises(KeyFrameNeeded):
        decoder.packed(payload).unpack()
    encoder.reset()
    healing = encoder.encode(fourth, LARGE)
    assert healing[0] == KEY
    assert_within_bound(encoder, decoder.packed(healing).unpack(), fourth)
    assert_agree(encoder, decoder)
    again = encoder.encode(fourth, LARGE)
    assert again[0] == DIFFERENCE
    decoder.packed(again).unpack()
    assert_agree(encoder, decoder)


def test_a_fresh_decoder_needs_a_key_frame() -> None:
    encoder, _ = ends()
    array = like_calibration(SPEC)
    encoder.encode(array, SPEC)
    payload = encoder.encode(array, SPEC)
    assert payload[0] == DIFFERENCE
    with pytest.raises(KeyFrameNeeded):
        ends()[1].packed(payload).unpack()


def test_a_decoder_that_was_reset_needs_a_key_frame() -> None:
    encoder, decoder = ends()
    array = like_calibration(SPEC)
    decoder.packed(encoder.encode(array, SPEC)).unpack()
    decoder.reset()
    with pytest.raises(KeyFrameNeeded):
        decoder.packed(encoder.encode(array, SPEC)).unpack()


def test_a_difference_is_decoded_once_only() -> None:
    encoder, decoder = ends()
    array = like_calibration(SPEC)
    decoder.packed(encoder.encode(array, SPEC)).unpack()
    payload = encoder.encode(array, SPEC)
    decoder.packed(payload).unpack()
    before = snapshot(decoder)
    with pytest.raises(KeyFrameNeeded):
        decoder.packed(payload).unpack()
    assert snapshot(decoder) == before


def test_numbers_wrap_without_harm() -> None:
    frames = slow_stream(SPEC, 8, change=0.02)
    encoder, decoder = ends()
    encoder.frame = 2**32 - 4
    numbers, kinds = [], []
    for array in frames:
        payload = encoder.encode(array, SPEC)
        kinds.append(payload[0])
        assert_within_bound(encoder, decoder.packed(payload).unpack(), array)
        assert_agree(encoder, decoder)
        numbers.append(encoder.frame)
    assert numbers == [2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1, 2, 3, 4]
    assert kinds == [KEY] + [DIFFERENCE] * 7


def test_a_loss_where_numbers_wrap_is_noticed() -> None:
    encoder, decoder = ends()
    encoder.frame = 2**32 - 3
    array = like_calibration(SPEC)
    decoder.packed(encoder.encode(array, SPEC)).unpack()
    encoder.encode(array, SPEC)  # lost
    with pytest.raises(KeyFrameNeeded):
        decoder.packed(encoder.encode(array, SPEC)).unpack()


@pytest.mark.parametrize("level", [1, 4, 8])
@pytest.mark.parametrize("shape", [(1, 17, 12), (1, 60), (1, 4, 3, 5, 5)], ids=str)
def test_any_shape_streams(shape: tuple[int, ...], level: int) -> None:
    spec = spec_of(shape)
    encoder, decoder = ends(spec, min(level, table_of(spec).levels))
    for array in slow_stream(spec, 12, change=0.05):
        decoded = decoder.packed(encoder.encode(array, spec)).unpack()
        assert_agree(encoder, decoder)
        assert_within_bound(encoder, decoded, array)


def test_frames_with_outliers_stay_within_the_bound() -> None:
    """A coefficient that is not sent goes apart, in key frames and differences alike."""
    encoder, decoder = ends(LARGE, 1)
    assert len(encoder.coder.level.order) < encoder.coder.size
    for number, array in enumerate(slow_stream(LARGE, 8, change=0.02)):
        if number % 3:
            array[0, 3, 5, 5] += 4 * number
        decoded = decoder.packed(encoder.encode(array, LARGE)).unpack()
        assert_agree(encoder, decoder)
        assert_within_bound(encoder, decoded, array)


# --- sizes ---


def bytes_of(frames: list[Array], spec: TensorSpec, level: int, *, keys: bool) -> int:
    """Without the first frame, which is a key frame anyway."""
    encoder, _ = ends(spec, level)
    sizes = []
    for array in frames:
        if keys:
            encoder.reset()
        sizes.append(len(encoder.encode(array, spec)))
    return sum(sizes[1:])


@pytest.mark.parametrize("level", [1, 4, 8])
def test_a_still_stream_costs_a_fifth_of_key_frames_at_most(level: int) -> None:
    frames = slow_stream(LARGE, 1, change=0) * 12
    plain = bytes_of(frames, LARGE, level, keys=True)
    assert bytes_of(frames, LARGE, level, keys=False) <= 0.2 * plain


@pytest.mark.parametrize("level", [1, 4, 8])
def test_a_slow_stream_costs_less_than_key_frames(level: int) -> None:
    frames = slow_stream(LARGE, 30, change=0.02)
    plain = bytes_of(frames, LARGE, level, keys=True)
    assert bytes_of(frames, LARGE, level, keys=False) < 0.8 * plain


def test_no_frame_costs_more_than_a_key_frame() -> None:
    """Unrelated frames, and the same one now and then."""
    encoder, _ = ends()
    arrays = [like_calibration(SPEC, 1, seed) for seed in (1, 1, 2, 3, 3, 4, 1, 5)]
    other = VideoState(encoder.coder)
    for array in arrays:
        other.reset()
        assert len(encoder.encode(array, SPEC)) <= len(other.encode(array, SPEC))


# --- what is refused ---


def test_an_input_that_is_refused_leaves_the_encoder_as_it_was() -> None:
    frames = slow_stream(SPEC, 3, change=0.02)
    encoder, decoder = ends()
    decoder.packed(encoder.encode(frames[0], SPEC)).unpack()
    for value in (np.nan, np.inf, 1e30, 3e38):
        broken = frames[1].copy()
        broken.flat[9] = value
        before = snapshot(encoder)
        with pytest.raises(CodecError):
            encoder.encode(broken, SPEC)
        assert snapshot(encoder) == before
    payload = encoder.encode(frames[2], SPEC)
    assert payload[0] == DIFFERENCE
    decoder.packed(payload).unpack()
    assert_agree(encoder, decoder)


def test_batches_are_refused() -> None:
    encoder, _ = ends()
    with pytest.raises(CodecError):
        encoder.encode(like_calibration(SPEC, 2), SPEC)


def test_what_a_key_frame_can_carry_is_carried_after_any_frame() -> None:
    """Also where the difference to the last frame would be too large to write."""
    table, step = table_of(SPEC), coder_of(SPEC, LEVEL).level.step

    def frame(signs: list[int]) -> Array:
        """A few huge coefficients of the lowest frequency."""
        waves = np.zeros((1, *table.log_scale.shape), np.float32)
        waves[0, : len(signs), 0] = np.array(signs) * 0.6 * MAX_MAGNITUDE * step
        return table.grid.tensor(table.inverse(waves), SPEC.shape)

    first, second = frame([1, 1, 1, 1, 1, 1]), frame([1, 1, 1, 1, 1, -1])
    alone, _ = ends()
    assert alone.encode(second, SPEC)[0] == KEY
    encoder, decoder = ends()
    decoder.packed(encoder.encode(first, SPEC)).unpack()
    decoded = decoder.packed(encoder.encode(second, SPEC)).unpack()
    assert_agree(encoder, decoder)
    assert_within_bound(encoder, decoded, second)


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """The frame's number stays, so that most of it gets through the head."""
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data))
        match rng.randrange(7):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[0] = rng.choice((KEY, DIFFERENCE, 2, 255))
            case 3:
                at = min(_HEAD_BYTES + rng.randrange(RINGS), len(data) - 1)
                data[at] = rng.randrange(256)
            case 4:
                data += rng.randbytes(3)
            case 5:
                del data[max(at, 1) :]
            case _:
                data[at] = rng.choice((0, 1, 64, 255))
    return bytes(data)


def test_damaged_payloads_raise_only_codec_errors_and_change_nothing() -> None:
    first, second = slow_stream(SPEC, 2, change=0.05)
    encoder, decoder = ends()
    key = encoder.encode(first, SPEC)
    decoder.packed(key).unpack()
    difference = encoder.encode(second, SPEC)
    assert difference[0] == DIFFERENCE
    kept, frame = decoder._kept.copy(), decoder.frame
    before, rng, refused = snapshot(decoder), random.Random(0), 0
    for _ in range(6_000):
        damaged = mutated(rng, rng.choice((key, difference, difference)))
        try:
            decoded = decoder.packed(damaged).unpack()
        except CodecError:
            refused += 1
            assert snapshot(decoder) == before
            continue
        assert decoded.shape == SPEC.shape
        assert decoded.dtype == np.float32
        decoder._kept, decoder.frame, decoder._ready = kept.copy(), frame, True
    assert 3_000 < refused < 6_000
    decoder.packed(difference).unpack()
    assert_agree(encoder, decoder)


@pytest.mark.parametrize("kind", [KEY, DIFFERENCE])
def test_every_truncation_is_refused(kind: int) -> None:
    first, second = slow_stream(SPEC, 2, change=0.05)
    encoder, decoder = ends()
    payload = encoder.encode(first, SPEC)
    if kind == DIFFERENCE:
        decoder.packed(payload).unpack()
        payload = encoder.encode(second, SPEC)
    assert payload[0] == kind
    before = snapshot(decoder)
    for length in range(len(payload)):
        with pytest.raises(CodecError):
            decoder.packed(payload[:length]).unpack()
        assert snapshot(decoder) == before


def test_values_that_add_up_beyond_all_bounds_are_refused() -> None:
    encoder, decoder = ends()
    array = like_calibration(SPEC)
    decoder.packed(encoder.encode(array, SPEC)).unpack()
    payload = encoder.encode(array, SPEC)
    assert payload[0] == DIFFERENCE
    # As if frame after frame had added to what is kept.
    decoder._kept = np.full_like(decoder._kept, 1 << 55)
    before = snapshot(decoder)
    with pytest.raises(CodecError, match="bounds"):
        decoder.packed(payload).unpack()
    assert snapshot(decoder) == before


# --- as a codec ---


def test_streams_of_a_boundary_are_apart() -> None:
    other = spec_of((1, 17, 12), name="y")
    tables = {"x": table_of(SPEC), "y": table_of(other)}
    codec = CodecSet(lambda boundary: tables).named("fkt-video@4", 0)
    assert isinstance(codec, FktVideo)
    assert isinstance(codec, Codec)
    sender, receiver = codec.new_stream(), codec.new_stream()
    assert sender.supports(SPEC)
    assert not sender.supports(spec_of((1, 3)))
    kinds = []
    for _ in range(3):
        for spec in (other, SPEC):
            payload = sender.encode(like_calibration(spec), spec)
            if spec is SPEC:  # a small tensor's key frame may be shorter than a difference
                kinds.append(payload[0])
            assert len(payload) <= codec.max_payload_bytes(spec, 1)
            assert receiver.decode(payload, spec, 1).shape == spec.shape
    assert kinds == [KEY, DIFFERENCE, DIFFERENCE]
    sender.reset()
    assert sender.encode(like_calibration(SPEC), SPEC)[0] == KEY
    assert sender.encode(like_calibration(other), other)[0] == KEY


def test_without_a_stream_every_frame_is_a_key_frame() -> None:
    codec = CodecSet(lambda boundary: {"x": table_of(SPEC)}).named("fkt-video@2", 0)
    array = like_calibration(SPEC)
    payloads = [codec.encode(array, SPEC) for _ in range(2)]
    assert payloads[0] == payloads[1]
    assert payloads[0][0] == KEY
    state, _ = ends(SPEC, 2)
    decoded = codec.decode(payloads[0], SPEC, 1)
    assert_within_bound(state, decoded, array)
    with pytest.raises(CodecError):
        codec.decode(payloads[0], SPEC, 2)


def test_a_stream_is_worked_out_with_its_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker begins streams on its event loop, and decodes in other threads."""
    made = []

    class Counted(VideoState):
        def __init__(self, coder: CoefficientCoder) -> None:
            made.append(coder)
            super().__init__(coder)

    monkeypatch.setattr(video, "VideoState", Counted)
    spec = spec_of((1, 6, 8, 8))
    stream = FktVideo("fkt-video", {spec.name: coder_of(spec, 1)}).new_stream()
    assert not made
    for _ in range(2):
        stream.encode(like_calibration(spec), spec)
    assert len(made) == 1
