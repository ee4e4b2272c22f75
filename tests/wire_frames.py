"""A small model's frames and replies, to the byte, and what becomes of them."""

import numpy as np
import pytest
from splitpoint.codec import (
    NO_TABLES,
    TensorSpec,
    codec_named,
)
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    FrameError,
    build_frame,
    check_frame,
    encode_tensors,
    frame_crc32,
    parse_client,
    reply_crc32,
)
from splitpoint.proto.limits import (
    MAX_BATCH_PER_FRAME,
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


def valid_reply(batch=1, status=pb.OK):
    values = {"y": np.repeat(ANSWER["y"], batch, axis=0)}
    outputs = encode_tensors(values, OUTPUT, codec_named("raw"))
    reply = pb.Reply(id=300, message_index=2, status=status, outputs=outputs)
    reply.crc32 = reply_crc32(reply)
    return reply
