"""Frames that do not fit the model, and damage of those that do."""

import numpy as np
import pytest
from splitpoint.codec import (
    DTYPE_NUMBERS,
    codec_named,
)
from splitpoint.proto.frames import (
    CheckedFrame,
)
from splitpoint.proto.limits import (
    MAX_BATCH_PER_FRAME,
)
from wire_frames import (
    INNER,
    VALUES,
    batch_of,
    change,
    change_tensor,
    checked,
    sealed,
    status_of,
    valid_frame,
)

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
