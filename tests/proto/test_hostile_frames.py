"""Whatever arrives: flipped bits, mutations, random bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    codec_named,
)
from splitpoint.codec import codec_of_tensor as carrier
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    FrameError,
    decode_reply,
    encode_tensors,
    frame_crc32,
    parse_client,
    parse_server,
)
from splitpoint.proto.limits import (
    MAX_BATCH_PER_FRAME,
)
from wire_frames import (
    ANSWER,
    BOUNDARIES,
    FRAME,
    INNER,
    OUTPUT,
    REPLY,
    assert_same_values,
    batch_of,
    checked,
    outcome,
    status_of,
    valid_frame,
)


def receive(data, reference):
    """The kind of `data`, or None if it is refused; what is accepted must be `reference`."""
    try:
        message = parse_client(data)
        kind = message.WhichOneof("kind")
        if kind == "frame":
            frame = checked(message.frame)
            frame.decode()
            assert frame == reference
    except FrameError:
        return None
    return kind


@pytest.mark.parametrize("codec", ["raw", "q8", "fp16"])
def test_every_flipped_bit_of_a_frame(codec):
    frame = valid_frame(codec)
    data = pb.ClientMessage(frame=frame).SerializeToString()
    reference = checked(frame)
    assert receive(data, reference) == "frame"
    kinds = []
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        kinds.append(receive(bytes(damaged), reference))
    assert kinds.count("frame") == 0
    # Only the outermost tag and length can turn it into another kind of message.
    assert set(kinds[24:]) == {None}


def test_every_flipped_bit_of_a_reply():
    reference = parse_server(REPLY).reply
    covered = ("id", "message_index", "status", "outputs", "crc32")
    accepted = 0
    for bit in range(8 * len(REPLY)):
        damaged = bytearray(REPLY)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            message = parse_server(bytes(damaged))
            if message.WhichOneof("kind") != "reply":
                assert bit < 16  # the outermost tag and length
                continue
            outputs = decode_reply(message.reply, OUTPUT, 1)
        except FrameError:
            continue
        accepted += 1  # the damage is in times or load, which the CRC does not cover
        assert all(getattr(message.reply, name) == getattr(reference, name) for name in covered)
        assert_same_values(outputs, ANSWER)
    assert 0 < accepted <= 8 * 26


@pytest.mark.parametrize("codec", ["raw", "q8"])
def test_mutated_frames(codec):
    """Cuts, insertions, repetitions and several flips at a time."""
    frame = valid_frame(codec, batch_of(2))
    data = pb.ClientMessage(frame=frame).SerializeToString()
    reference, rng = checked(frame), random.Random(codec)
    refused = 0
    for _ in range(5000):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 2, 5))):
            at, end = sorted(rng.randrange(len(damaged) + 1) for _ in range(2))
            match rng.randrange(4):
                case 0:
                    del damaged[at : min(end, at + 4)]
                case 1:
                    damaged[at:at] = rng.randbytes(rng.randrange(1, 5))
                case 2:
                    damaged[at:at] = damaged[at:end]
                case _:
                    damaged[at:end] = bytes(
                        byte ^ (1 << rng.randrange(8)) for byte in damaged[at:end]
                    )
        refused += receive(bytes(damaged), reference) is None
    assert refused > 4000


@given(st.binary(max_size=200))
def test_random_bytes(data):
    for parse in (parse_client, parse_server):
        message, status = outcome(parse, data)
        assert status == "MALFORMED" or message.WhichOneof("kind") is not None


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x12", b"\x12\x05\x08", b"\x2a\x00", b"\xff" * 20]
)
def test_malformed_messages(data):
    assert status_of(parse_client, data) == "MALFORMED"
    assert status_of(parse_server, data) == "MALFORMED"


def test_text_that_is_no_utf8_is_malformed():
    assert status_of(parse_client, FRAME.replace(b"raw", b"r\xffw")) == "MALFORMED"


def test_message_that_comes_twice_is_refused():
    """Protobuf merges repeated occurrences of a field: two frames become one of four tensors."""
    assert status_of(checked, parse_client(FRAME * 2).frame) == "MISMATCH"
    assert status_of(decode_reply, parse_server(REPLY * 2).reply, OUTPUT, 1) == "MISMATCH"


CHECKED = {"MALFORMED", "OUT_OF_RANGE", "UNKNOWN_CODEC", "MISMATCH", "TOO_LARGE", "CORRUPT"}
numbers = st.sampled_from([0, 1, 2, 3, 5, 6, 17, 2**31, 2**32 - 1])
any_tensor = st.builds(
    pb.Tensor,
    dtype=st.sampled_from([1, 3, 6, 9, 2**32 - 1]),
    shape=st.sampled_from([[1, 3], [2, 1], [2, 3], [4, 1], [1, 2, 3, 3], [1, 2]])
    | st.lists(numbers, max_size=5),
    payload=st.sampled_from([b"", bytes(12), bytes(16), bytes(8), bytes(18)]),
)
good_x, good_n = (
    st.sampled_from(
        [
            encode_tensors(batch_of(count), INNER, codec_named(name))[number]
            for name in ("raw", "fp16", "q8", "q4")
            for count in (1, 2)
        ]
    )
    for number in (0, 1)
)


@given(
    id=st.sampled_from([1, 2, 300, 2**63, 2**64 - 1, 0]),
    boundary=st.sampled_from([1, 1, 1, 2, 2, 0, 3, 2**32 - 1]),
    codec=st.sampled_from(["raw", "fp16", "q8", "q4", "jpeg", "webp@9", "png", "png@9", "\u20ac"]),
    tensors=st.tuples(good_x, good_n)
    | st.tuples(good_x | any_tensor, good_n | any_tensor)
    | st.lists(any_tensor, max_size=3),
    budget_ms=numbers,
    seal=st.sampled_from([True, True, True, False]),
)
def test_any_frame(seal, **fields):
    """Sealed or not, a frame of any content is refused by `FrameError` or fits the manifest."""
    frame = pb.Frame(**fields)
    if seal:
        frame.crc32 = frame_crc32(frame)
    accepted, status = outcome(checked, frame)
    if accepted is None:
        assert status in CHECKED
        return
    assert frame.crc32 == frame_crc32(frame)
    assert accepted.id > 0
    assert accepted.specs == BOUNDARIES[accepted.boundary]
    assert accepted.boundary < len(BOUNDARIES) - 1
    assert 1 <= accepted.batch <= MAX_BATCH_PER_FRAME
    for tensor, spec in zip(frame.tensors, accepted.specs, strict=True):
        assert tuple(tensor.shape) == spec.shape_at(accepted.batch)
    decoded, status = outcome(accepted.decode)
    if decoded is None:
        assert status == "UNDECODABLE"
        return
    for spec in accepted.specs:
        assert decoded[spec.name].shape == spec.shape_at(accepted.batch)
        assert carrier(accepted.codec, spec).supports(spec)
