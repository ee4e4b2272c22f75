"""docs/wire.md says what the code does: a client in another language is written from it."""

from __future__ import annotations

import re
from pathlib import Path

from splitpoint.codec import CODECS, DTYPE_NUMBERS, DTYPES
from splitpoint.codec.simple.affine import MIN_VALUES_PER_CHANNEL
from splitpoint.codec.spec import MAX_RANK
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import CHUNK_BYTES, MAX_BATCH_PER_FRAME, MAX_CREDITS, PROTOCOL, SERVICE
from splitpoint.proto.outline import MOST_FIELDS

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
    streamed = {"Hello", "Welcome", "Frame", "Tensor", "Cancel", "Probe", "ProbeReply", "Draining"}
    assert set(said) == streamed | {"Reply", "Times", "Load"}
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
    assert set(CODECS) | {"fkt", "fkt-video"} <= families


def test_limits_are_those_of_the_code() -> None:
    limits = dict(table("| limit | value |"))
    assert limits["credits"] == str(MAX_CREDITS)
    assert limits["samples in one frame"] == str(MAX_BATCH_PER_FRAME)
    assert limits["one chunk of a file"] == f"at most {CHUNK_BYTES >> 10} KiB"
    assert limits["fields of one message, with those inside it"] == str(MOST_FIELDS)
    assert f"protocol version {PROTOCOL}" in PAGE
    assert f"at most {MAX_RANK} extents" in PAGE
    assert f"fewer than\n{MIN_VALUES_PER_CHANNEL} values" in PAGE
