"""docs/wire.md says what the code does: a client in another language is written from it."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from splitpoint.codec import CODECS, DTYPE_NUMBERS, DTYPES, TensorSpec, codec_named
from splitpoint.codec.simple.affine import MIN_VALUES_PER_CHANNEL
from splitpoint.codec.simple.plain import Lossless
from splitpoint.codec.spec import MAX_RANK
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.tasks.task import Task
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, build_reply, encode_tensors
from splitpoint.proto.limits import CHUNK_BYTES, MAX_BATCH_PER_FRAME, MAX_CREDITS, PROTOCOL, SERVICE
from splitpoint.proto.wire_scan import MOST_FIELDS

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The rows of the table that begins so, without backticks."""
    rows = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]


def test_messages_have_the_fields_of_the_proto() -> None:
    said: dict[str, dict[str, int]] = {}
    message = ""
    for first, field, number, _ in table("| message | field |"):
        message = first or message
        said.setdefault(message, {})[field] = int(number)
    in_pb = pb.DESCRIPTOR.message_types_by_name
    for message, fields in said.items():
        assert fields == {field.name: field.number for field in in_pb[message].fields}, message
    assert set(said) | {"ClientMessage", "ServerMessage"} == set(in_pb)
    for name in ("ClientMessage", "ServerMessage"):
        (sentence,) = re.findall(rf"`{name}`\s+holds\s+one of ([^.]*)\.", PAGE)
        kinds = {kind: int(number) for kind, number in re.findall(r"`(\w+)` \((\d)\)", sentence)}
        assert kinds == {field.name: field.number for field in in_pb[name].fields}


def test_calls_are_those_of_the_service() -> None:
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert f"`{service.full_name}`" in PAGE
    assert service.full_name == SERVICE
    assert [row[0] for row in table("| call | request |")] == [m.name for m in service.methods]


def test_statuses_and_dtypes_are_those_of_the_code() -> None:
    statuses = {row[1]: int(row[0]) for row in table("| number | status |")}
    assert statuses == {name: number for name, number in pb.Status.items() if number}
    dtypes = {row[1]: (int(row[0]), int(row[2][0])) for row in table("| number | dtype |")}
    assert dtypes == {n: (DTYPE_NUMBERS[n], DTYPES[n].itemsize) for n in DTYPES}


def test_codecs_are_those_of_the_table() -> None:
    named = re.findall(r"^\| (`[^|]*`) \|", PAGE.partition("| codec | carries |")[2], re.MULTILINE)
    families = {name.partition("@")[0] for cell in named for name in re.findall(r"`([^`]+)`", cell)}
    assert set(CODECS) | {"fkt", "fkt-video", "learned", "learned-video"} <= families


def test_limits_are_those_of_the_code() -> None:
    limits = dict(table("| limit | value |"))
    assert limits["credits"] == str(MAX_CREDITS)
    assert limits["samples in one frame"] == str(MAX_BATCH_PER_FRAME)
    assert limits["one chunk of a file"] == f"at most {CHUNK_BYTES >> 10} KiB"
    assert limits["fields of one message, with those inside it"] == str(MOST_FIELDS)
    assert f"protocol version {PROTOCOL}" in PAGE
    assert f"at most {MAX_RANK} extents" in PAGE
    assert f"fewer than\n{MIN_VALUES_PER_CHANNEL} values" in PAGE


def form_of(head: str, *shape: int) -> AnswerForm:
    spec = TensorSpec(name="o", dtype="float32", shape=(1, *shape), batch_dim=0)
    opened = Task.of_head(head, max_detections=7).open({"o": spec}, (64, 64))
    assert opened is not None
    return AnswerForm(specs=opened.specs, codec=Lossless(), outputs={"o": "o"}, head=opened)


@pytest.mark.parametrize(("kind", "head", "shape"), [
    ("detect", "boxes", (9, 6)), ("segment", "segment", (5, 16, 24)),
])  # fmt: skip
def test_answers_of_heads_travel_as_the_page_says(
    kind: str, head: str, shape: tuple[int, ...]
) -> None:
    """A client reads them with zstd and the table, and without this code."""
    values = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    form = form_of(head, *shape)
    answer = form.made({"o": values})
    (tensor,) = encode_tensors(answer, form.specs, form.codec)
    says = {row[0]: row[1:] for row in table("| `task.kind` | name |")}
    name, dtype, extents, _ = says[kind]
    sizes = {"batch": 2, "max_detections": 7, "6": 6, "height": 16, "width": 24}
    assert list(tensor.shape) == [sizes[extent] for extent in extents.strip("[]").split(", ")]
    assert DTYPE_NUMBERS[dtype] == tensor.dtype
    plain = zstandard.ZstdDecompressor().decompress(tensor.payload)
    found = np.frombuffer(plain, DTYPES[dtype]).reshape(tuple(tensor.shape))
    np.testing.assert_array_equal(found, answer[name])
    assert f"always in `{form.codec.name}`" in PAGE.replace("\n", " ")
    assert form.codec.name not in CODECS  # as the page says, too


SPEC = TensorSpec(name="x", dtype="float32", shape=(1, 3, 5, 7), batch_dim=0)


def a_frame(codec: str) -> tuple[pb.Frame, np.ndarray]:
    """One of two samples."""
    values = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    tensors = encode_tensors({"x": values}, [SPEC], codec_named(codec))
    data = build_frame(id=7, boundary=2, codec=codec, tensors=tensors, budget_ms=300)
    return pb.ClientMessage.FromString(data).frame, values


def test_checksums_are_taken_over_what_the_page_says() -> None:
    frame, _ = a_frame("raw")
    (tensor,) = frame.tensors
    parts = struct.pack("<QII", 7, 2, 300) + b"raw"
    described = struct.pack("<II4I", 1, 4, 2, 3, 5, 7) + tensor.payload
    assert frame.crc32 == zlib.crc32(parts + described)
    reply = pb.Reply(id=7, message_index=9, status=pb.OK, outputs=[tensor])
    answer = pb.ServerMessage.FromString(build_reply(reply)).reply
    assert answer.crc32 == zlib.crc32(struct.pack("<QQI", 7, 9, 1) + described)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_payloads_are_laid_out_as_the_page_says(bits: int) -> None:
    """Three channels of 35 values: with 4 bits a sample ends in the middle of a byte."""
    frame, values = a_frame(f"q{bits}")
    plain = zstandard.ZstdDecompressor().decompress(frame.tensors[0].payload)
    minima, steps = np.frombuffer(plain, "<f4", 2 * 2 * 3).reshape(2, 2, 3, 1)
    symbols = np.frombuffer(plain, np.uint8, offset=48).reshape(2, -1)
    if bits == 4:
        symbols = np.stack([symbols >> 4, symbols & 15], axis=2).reshape(2, -1)[:, : 3 * 35]
    found = (minima + symbols.reshape(2, 3, 35) * steps).reshape(values.shape)
    np.testing.assert_allclose(found, codec_named(f"q{bits}").decode(
        frame.tensors[0].payload, SPEC, 2), rtol=1e-6)  # fmt: skip
    assert (abs(found - values) <= 0.51 * steps.reshape(2, 3, 1, 1)).all()
