"""Frames and replies on the wire: to the byte, there and back, and how large they may be."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    DTYPES,
    NO_TABLES,
    CodecError,
    SpecError,
    codec_named,
)
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    build_frame,
    build_reply,
    check_frame,
    decode_reply,
    encode_tensors,
    frame_crc32,
    parse_client,
    parse_server,
)
from splitpoint.proto.limits import (
    ENVELOPE_BYTES,
    MESSAGE_CEILING_BYTES,
    max_frame_bytes,
)
from wire_frames import (
    ANSWER,
    BOUNDARIES,
    FRAME,
    INNER,
    OUTPUT,
    REPLY,
    VALUES,
    assert_same_values,
    checked,
    spec_of,
    valid_frame,
)


def test_golden_frame():
    tensors = encode_tensors(VALUES, INNER, codec_named("raw"))
    built = build_frame(id=300, boundary=1, codec="raw", tensors=tensors, budget_ms=250)
    assert built.hex() == FRAME.hex()
    frame = checked(parse_client(FRAME).frame)
    assert (frame.id, frame.boundary, frame.batch, frame.budget_ms) == (300, 1, 1, 250)
    assert (frame.codec, frame.specs) == (codec_named("raw"), INNER)
    assert_same_values(frame.decode(), VALUES)


def test_golden_reply():
    reply = pb.Reply(
        id=300,
        message_index=2,
        status=pb.OK,
        outputs=encode_tensors(ANSWER, OUTPUT, codec_named("raw")),
        times=pb.Times(queue_us=1, decode_us=2, compute_us=3, total_us=6, batch=1),
        load=pb.Load(queued=1, queue_ms=0.5, utilisation=0.25),
    )
    assert build_reply(reply).hex() == REPLY.hex()
    parsed = parse_server(REPLY).reply
    assert (parsed.id, parsed.message_index, parsed.status) == (300, 2, pb.OK)
    assert_same_values(decode_reply(parsed, OUTPUT, 1), ANSWER)


def test_crc_is_over_these_fields():
    tensors = (
        struct.pack("<IIII", 1, 2, 1, 3) + VALUES["x"].tobytes(),
        struct.pack("<IIII", 6, 2, 2, 1) + VALUES["n"].tobytes(),
    )
    fields = struct.pack("<QII", 300, 1, 250) + b"raw" + b"".join(tensors)
    assert zlib.crc32(fields) == parse_client(FRAME).frame.crc32
    fields = struct.pack("<QQI", 300, 2, 1) + struct.pack("<IIII", 1, 2, 1, 2)
    assert zlib.crc32(fields + ANSWER["y"].tobytes()) == parse_server(REPLY).reply.crc32


def test_numbers_of_statuses_and_kinds_are_frozen():
    assert dict(pb.Status.items()) == {
        "STATUS_UNSPECIFIED": 0,
        "OK": 1,
        "MALFORMED": 2,
        "CORRUPT": 3,
        "OUT_OF_RANGE": 4,
        "MISMATCH": 5,
        "TOO_LARGE": 6,
        "UNKNOWN_CODEC": 7,
        "UNDECODABLE": 8,
        "EXPIRED": 9,
        "OVERLOADED": 10,
        "CANCELLED": 11,
        "STOPPING": 12,
        "INTERNAL": 13,
        "KEY_FRAME": 14,
    }
    kinds = [
        {field.name: field.number for field in message.DESCRIPTOR.oneofs_by_name["kind"].fields}
        for message in (pb.ClientMessage, pb.ServerMessage)
    ]
    assert kinds == [
        {"hello": 1, "frame": 2, "cancel": 3, "probe": 4},
        {"welcome": 1, "reply": 2, "probe": 3, "draining": 4},
    ]


# --- roundtrip ---


@st.composite
def tensors(draw):
    """Specifications of one boundary, and values for a batch."""
    batch = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    specs, values = [], {}
    for name in draw(
        st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True)
    ):
        shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
        dtype = draw(st.sampled_from(list(DTYPES)))
        spec = spec_of(name, dtype, shape, draw(st.integers(0, len(shape) - 1)))
        noise = rng.normal(0, 50, spec.shape_at(batch))
        specs.append(spec)
        values[name] = (abs(noise) if dtype == "uint8" else noise.clip(-128, 127)).astype(dtype)
    return tuple(specs), values, batch


@given(
    tensors(),
    st.sampled_from(["raw", "q8"]),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2),
)
def test_frame_roundtrip(tensors, codec, id, budget_ms, boundary):
    specs, values, batch = tensors
    boundaries = [OUTPUT] * boundary + [specs] + [OUTPUT] * (3 - boundary)
    data = build_frame(
        id=id,
        boundary=boundary,
        codec=codec,
        tensors=encode_tensors(values, specs, codec_named(codec)),
        budget_ms=budget_ms,
    )
    assert len(data) <= max_frame_bytes(boundaries, batch)
    frame = check_frame(parse_client(data).frame, boundaries, batch, NO_TABLES)
    assert (frame.id, frame.boundary, frame.budget_ms) == (id, boundary, budget_ms)
    assert (frame.batch, frame.specs, frame.codec.name) == (batch, specs, codec)
    decoded = frame.decode()
    assert list(decoded) == list(values)
    for spec in specs:
        value = values[spec.name]
        assert decoded[spec.name].shape == value.shape
        if codec == "raw" or spec.dtype != "float32":
            assert decoded[spec.name].tobytes() == value.tobytes()
        else:
            limit = (value.max() - value.min()) / 255 * 0.501 + 1e-4
            assert abs(decoded[spec.name] - value).max() <= limit


@given(tensors(), st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_reply_roundtrip(tensors, id, index):
    specs, values, batch = tensors
    outputs = encode_tensors(values, specs, codec_named("raw"))
    reply = pb.Reply(id=id, message_index=index, status=pb.OK, outputs=outputs)
    parsed = parse_server(build_reply(reply)).reply
    assert (parsed.id, parsed.message_index, parsed.status) == (id, index, pb.OK)
    decoded = decode_reply(parsed, specs, batch)
    for name, value in values.items():
        assert decoded[name].tobytes() == value.tobytes()
        assert (decoded[name].shape, decoded[name].dtype) == (value.shape, value.dtype)


def test_image_codec_with_a_quality_crosses_the_wire():
    pictures = {"picture": np.full((2, 2, 3, 3), 77, np.uint8)}
    frame = checked(valid_frame("jpeg@60", pictures, boundary=0))
    assert frame.codec == codec_named("jpeg@60")
    assert abs(frame.decode()["picture"].astype(int) - 77).max() < 3


def test_encode_tensors_refuses_what_does_not_fit():
    raw, q8 = codec_named("raw"), codec_named("q8")
    with pytest.raises(SpecError):
        encode_tensors({**VALUES, "x": VALUES["x"].astype(np.float64)}, INNER, raw)
    with pytest.raises(SpecError):
        encode_tensors({**VALUES, "n": VALUES["n"][:1]}, INNER, raw)
    infinite = {**VALUES, "x": np.full((1, 3), np.inf, np.float32)}
    assert len(encode_tensors(infinite, INNER, raw)) == 2
    with pytest.raises(CodecError):
        encode_tensors(infinite, INNER, q8)


# --- sizes ---


def test_max_frame_bytes_is_that_of_the_largest_boundary():
    small, large = OUTPUT, (spec_of("x", "float32", (1, 64, 56, 56)),)
    limit = max_frame_bytes([small, large, small], 4)
    assert limit == max_frame_bytes([large], 4)
    assert large[0].nbytes_at(4) + ENVELOPE_BYTES <= limit < large[0].nbytes_at(4) * 1.01
    assert max_frame_bytes([small], 1) < max_frame_bytes([small, small + large], 1)
    assert max_frame_bytes([(replace(large[0], shape=(1, 2**30)),)], 1) == MESSAGE_CEILING_BYTES


def test_largest_frame_of_every_codec_fits():
    rng = np.random.default_rng(0)
    values = {"picture": rng.integers(0, 256, (16, 2, 3, 3), np.uint8)}
    for codec in ("raw", "jpeg@100", "webp@100", "png"):
        frame = valid_frame(codec, values, boundary=0)
        data = pb.ClientMessage(frame=frame).SerializeToString()
        assert len(data) <= max_frame_bytes(BOUNDARIES, 16)


@pytest.mark.parametrize("nbytes", [0, 5 << 10, (5 << 10) + 1, 60_000, 256 << 10, 300_001])
def test_a_sum_is_that_of_all_bytes_however_many_there_are(nbytes: int) -> None:
    payload = bytes(range(251)) * (nbytes // 251 + 1)
    frame = pb.Frame(id=7, boundary=1, codec="raw", tensors=[pb.Tensor(payload=payload[:nbytes])])
    fields = struct.pack("<QII", 7, 1, 0) + b"raw" + struct.pack("<2I", 0, 0) + payload[:nbytes]
    assert frame_crc32(frame) == zlib.crc32(fields)
