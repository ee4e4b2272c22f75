"""Replies: what fits a request, and what is refused."""

import numpy as np
import pytest
from splitpoint.codec import (
    DTYPE_NUMBERS,
    codec_named,
)
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    decode_reply,
    encode_tensors,
    parse_server,
    reply_crc32,
)
from wire_frames import ANSWER, OUTPUT, assert_same_values, change, status_of, valid_reply


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
