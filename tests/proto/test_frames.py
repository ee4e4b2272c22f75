"""Messages: the bytes on the wire are frozen, and a receiver takes nothing that does not fit."""

import random
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import (
    DTYPE_NUMBERS,
    DTYPES,
    NO_TABLES,
    CodecError,
    SpecError,
    TensorSpec,
    codec_named,
)
from splitpoint.codec import codec_of_tensor as carrier
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    CheckedFrame,
    FrameError,
    build_frame,
    build_reply,
    check_frame,
    decode_reply,
    encode_tensors,
    frame_crc32,
    parse_client,
    parse_server,
    reply_crc32,
)
from splitpoint.proto.limits import (
    ENVELOPE_BYTES,
    MAX_BATCH_PER_FRAME,
    MESSAGE_CEILING_BYTES,
    max_frame_bytes,
)


def spec_of(name, dtype, shape, batch_dim=0):
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


PICTURE = (spec_of("picture", "uint8", (1, 2, 3, 3)),)
INNER = (spec_of("x", "float32", (1, 3)), spec_of("n", "int64", (2, 1)))
OUTPUT = (spec_of("y", "float32", (1, 2)),)
BOUNDARIES = (PICTURE, INNER, INNER, OUTPUT)

VALUES = {
    "x": np.array([[1, -2, 0.5]], np.float32),
    "n": np.array([[5], [-1]], np.int64),
}
ANSWER = {"y": np.array([[0.25, 3]], np.float32)}

FRAME = bytes.fromhex(
    "1242"  # ClientMessage.frame, 66 bytes
    "08ac02"  # id 300
    "1001"  # boundary 1
    "1a03726177"  # codec "raw"
    "2214" "0801" "12020103" "1a0c" "0000803f" "000000c0" "0000003f"  # float32 [1, 3]
    "2218" "0806" "12020201" "1a10" "0500000000000000" "ffffffffffffffff"  # int64 [2, 1]
    "28fa01"  # budget_ms 250
    "357dd2538c"  # crc32
)  # fmt: skip
REPLY = bytes.fromhex(
    "1238"  # ServerMessage.reply, 56 bytes
    "08ac02"  # id 300
    "1002"  # message_index 2
    "1801"  # status OK
    "2a10" "0801" "12020102" "1a08" "0000803e" "00004040"  # float32 [1, 2]
    "320a" "0801" "1002" "1803" "2006" "2801"  # times
    "3a0c" "0801" "150000003f" "1d0000803e"  # load
    "45c0f96edc"  # crc32
)  # fmt: skip


def valid_frame(codec="raw", values=VALUES, boundary=1):
    """A parsed frame, to be spoiled."""
    tensors = encode_tensors(values, BOUNDARIES[boundary], codec_named(codec))
    data = build_frame(id=300, boundary=boundary, codec=codec, tensors=tensors, budget_ms=250)
    return parse_client(data).frame


def batch_of(count):
    return {name: np.repeat(value, count, axis=0) for name, value in VALUES.items()}


def checked(frame, max_batch=MAX_BATCH_PER_FRAME):
    return check_frame(frame, BOUNDARIES, max_batch, NO_TABLES)


def sealed(frame):
    frame.crc32 = frame_crc32(frame)
    return frame


def status_of(action, *arguments):
    with pytest.raises(FrameError) as caught:
        action(*arguments)
    assert caught.value.what
    return pb.Status.Name(caught.value.status)


def outcome(action, *arguments):
    """What `action` returns, or the status of its `FrameError`."""
    try:
        return action(*arguments), None
    except FrameError as error:
        return None, pb.Status.Name(error.status)


def assert_same_values(decoded, values):
    assert list(decoded) == list(values)
    for name, value in values.items():
        assert decoded[name].dtype == value.dtype
        np.testing.assert_array_equal(decoded[name], value)


# --- the wire is frozen ---


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


# --- misfits ---


def change(**fields):
    def spoil(frame):
        for name, value in fields.items():
            setattr(frame, name, value)

    return spoil


def change_tensor(number, **fields):
    def spoil(frame):
        shape = fields.pop("shape", None)
        if shape is not None:
            frame.tensors[number].shape[:] = shape
        for name, value in fields.items():
            setattr(frame.tensors[number], name, value)

    return spoil


MISFITS = {
    "no id": (change(id=0), "MALFORMED"),
    "last boundary": (change(boundary=3), "OUT_OF_RANGE"),
    "boundary beyond the last": (change(boundary=4), "OUT_OF_RANGE"),
    "largest boundary": (change(boundary=2**32 - 1), "OUT_OF_RANGE"),
    "no codec": (change(codec=""), "UNKNOWN_CODEC"),
    "unknown codec": (change(codec="zip"), "UNKNOWN_CODEC"),
    "codec in capitals": (change(codec="RAW"), "UNKNOWN_CODEC"),
    "impossible quality": (change(codec="jpeg@0"), "UNKNOWN_CODEC"),
    "another boundary's tensors": (change(boundary=0), "MISMATCH"),
    "no tensors": (lambda frame: frame.ClearField("tensors"), "MISMATCH"),
    "tensor missing": (lambda frame: frame.tensors.pop(), "MISMATCH"),
    "tensor twice": (lambda frame: frame.tensors.append(frame.tensors[1]), "MISMATCH"),
    "tensors swapped": (lambda frame: frame.tensors.reverse(), "MISMATCH"),
    "no dtype": (change_tensor(0, dtype=0), "MISMATCH"),
    "another dtype": (change_tensor(0, dtype=DTYPE_NUMBERS["int32"]), "MISMATCH"),
    "unknown dtype": (change_tensor(1, dtype=2**32 - 1), "MISMATCH"),
    "no shape": (change_tensor(0, shape=[]), "MISMATCH"),
    "another extent": (change_tensor(0, shape=[1, 4]), "MISMATCH"),
    "another rank": (change_tensor(0, shape=[1, 3, 1]), "MISMATCH"),
    "empty batch": (change_tensor(0, shape=[0, 3]), "MISMATCH"),
    "half a batch": (change_tensor(1, shape=[3, 1]), "MISMATCH"),
    "batches differ": (change_tensor(1, shape=[4, 1]), "MISMATCH"),
    "batch too large": (change_tensor(0, shape=[MAX_BATCH_PER_FRAME + 1, 3]), "TOO_LARGE"),
    "largest batch": (change_tensor(0, shape=[2**32 - 1, 3]), "TOO_LARGE"),
    "payload too long": (change_tensor(0, payload=bytes(13)), "TOO_LARGE"),
    "second payload too long": (change_tensor(1, payload=bytes(17)), "TOO_LARGE"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfit(name):
    """The status names the misfit, whether or not the sender sealed it."""
    spoil, status = MISFITS[name]
    frame = valid_frame()
    assert checked(frame).batch == 1
    spoil(frame)
    assert status_of(checked, frame) == status
    assert status_of(checked, sealed(frame)) == status


def test_batch_limit_is_inclusive():
    frame = valid_frame(values=batch_of(4))
    assert checked(frame, 4).batch == 4
    assert status_of(checked, frame, 3) == "TOO_LARGE"


def test_payload_limit_is_that_of_the_tensors_codec():
    frame = valid_frame("q8")
    bounds = [codec_named("q8").max_payload_bytes(INNER[0], 1), INNER[1].nbytes_at(1)]
    for tensor, bound in zip(frame.tensors, bounds, strict=True):
        payload = tensor.payload
        tensor.payload = bytes(bound)
        assert checked(sealed(frame)).payloads[list(frame.tensors).index(tensor)] == bytes(bound)
        tensor.payload = bytes(bound + 1)
        assert status_of(checked, sealed(frame)) == "TOO_LARGE"
        tensor.payload = payload


DAMAGE = {
    "id": change(id=301),
    "boundary": change(boundary=2),  # of the same tensors
    "codec": change(codec="png"),  # under which these tensors travel raw
    "budget": change(budget_ms=251),
    "no budget": change(budget_ms=0),
    "batch": lambda frame: [
        change_tensor(i, shape=[2 * (i + 1), 3 - 2 * i])(frame) for i in (0, 1)
    ],
    "payload": change_tensor(0, payload=VALUES["x"][:, ::-1].tobytes()),
    "second payload": change_tensor(1, payload=bytes(16)),
    "payload cut": change_tensor(1, payload=bytes(15)),
    "payload gone": change_tensor(0, payload=b""),
    "crc": lambda frame: change(crc32=frame.crc32 ^ 1)(frame),
    "no crc": change(crc32=0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_crc_catches_damage_that_fits(name):
    frame = valid_frame()
    DAMAGE[name](frame)
    assert status_of(checked, frame) == "CORRUPT"
    assert isinstance(checked(sealed(frame)), CheckedFrame)


@pytest.mark.parametrize(
    ("codec", "number", "payload"),
    [
        ("raw", 0, b""),
        ("raw", 0, bytes(11)),
        ("raw", 1, bytes(15)),
        ("fp16", 0, bytes(5)),
        ("q8", 0, b""),
        ("q8", 0, bytes(11)),
        ("q4", 0, b"\x28\xb5\x2f\xfd"),
        ("q8", 1, bytes(15)),
    ],
)
def test_undecodable(codec, number, payload):
    """The CRC is right: the sender itself wrote this."""
    frame = valid_frame(codec)
    frame.tensors[number].payload = payload
    assert status_of(checked(sealed(frame)).decode) == "UNDECODABLE"


@pytest.mark.parametrize("codec", ["raw", "jpeg", "webp", "png", "jpeg@50"])
def test_undecodable_picture(codec):
    pictures = {"picture": np.zeros((1, 2, 3, 3), np.uint8)}
    frame = valid_frame(codec, pictures, boundary=0)
    assert checked(frame).decode()["picture"].shape == (1, 2, 3, 3)
    frame.tensors[0].payload = frame.tensors[0].payload[:-1]
    assert status_of(checked(sealed(frame)).decode) == "UNDECODABLE"


# --- whatever arrives ---


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


# --- replies ---


def valid_reply(batch=1, status=pb.OK):
    values = {"y": np.repeat(ANSWER["y"], batch, axis=0)}
    outputs = encode_tensors(values, OUTPUT, codec_named("raw"))
    reply = pb.Reply(id=300, message_index=2, status=status, outputs=outputs)
    reply.crc32 = reply_crc32(reply)
    return reply


def test_reply_of_a_batch():
    decoded = decode_reply(valid_reply(3), OUTPUT, 3)
    assert_same_values(decoded, {"y": np.repeat(ANSWER["y"], 3, axis=0)})


def shape_of_output(*shape):
    def spoil(reply):
        reply.outputs[0].shape[:] = shape

    return spoil


def field_of_output(name, value):
    return lambda reply: setattr(reply.outputs[0], name, value)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda reply: reply.ClearField("outputs"), "MISMATCH"),
        (lambda reply: reply.outputs.append(reply.outputs[0]), "MISMATCH"),
        (field_of_output("dtype", DTYPE_NUMBERS["float64"]), "MISMATCH"),
        (shape_of_output(2, 3), "MISMATCH"),
        (shape_of_output(0, 2), "MISMATCH"),
        (shape_of_output(2), "MISMATCH"),
        (shape_of_output(3, 2), "TOO_LARGE"),
        (shape_of_output(2**32 - 1, 2), "TOO_LARGE"),
        (field_of_output("payload", bytes(17)), "TOO_LARGE"),
        (field_of_output("payload", bytes(15)), "UNDECODABLE"),
        (field_of_output("payload", b""), "UNDECODABLE"),
    ],
)
def test_reply_misfit(spoil, status):
    reply = valid_reply(2)
    spoil(reply)
    reply.crc32 = reply_crc32(reply)
    assert status_of(decode_reply, reply, OUTPUT, 2) == status


def test_reply_for_fewer_samples():
    assert status_of(decode_reply, valid_reply(1), OUTPUT, 2) == "MISMATCH"


@pytest.mark.parametrize(
    "spoil",
    [
        change(id=301),
        change(message_index=3),
        change(status=pb.INTERNAL),
        change(crc32=0),
        field_of_output("payload", bytes(16)),
        field_of_output("payload", bytes(15)),
    ],
)
def test_reply_damage(spoil):
    reply = valid_reply(2)
    spoil(reply)
    assert status_of(decode_reply, reply, OUTPUT, 2) == "CORRUPT"


@pytest.mark.parametrize("status", [14, 2**31 - 1, -1, -(2**31)])
def test_reply_of_an_unknown_status(status):
    """Enums are open: any 32-bit number may arrive, and negative ones too."""
    reply = pb.Reply(id=300, status=status, outputs=valid_reply().outputs)
    assert parse_server(pb.ServerMessage(reply=reply).SerializeToString()).reply.status == status
    assert status_of(decode_reply, reply, OUTPUT, 1) == "CORRUPT"
    reply.crc32 = reply_crc32(reply)
    assert_same_values(decode_reply(reply, OUTPUT, 1), ANSWER)


def test_outputs_carry_what_is_not_finite():
    odd = {"y": np.array([[np.nan, -np.inf]], np.float32)}
    reply = pb.Reply(id=1, outputs=encode_tensors(odd, OUTPUT, codec_named("raw")))
    reply.crc32 = reply_crc32(reply)
    assert_same_values(decode_reply(reply, OUTPUT, 1), odd)


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
