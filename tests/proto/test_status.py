"""The table of statuses: what a reply that is not OK becomes."""

import pytest
from splitpoint.codec import SplitpointError
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.status import (
    EXCEPTIONS,
    FrameCancelledError,
    FrameCorruptError,
    FrameExpiredError,
    FrameFailedError,
    FrameRejectedError,
    OverloadedError,
    RemoteError,
    error_of_reply,
)

HOSTILE = "gone\x1b[2J\r\x07 \u202eme\nerror: all is lost"


def test_every_status_has_its_exception():
    assert set(EXCEPTIONS) == set(pb.Status.values()) - {pb.STATUS_UNSPECIFIED, pb.OK}


@pytest.mark.parametrize("status", EXCEPTIONS, ids=pb.Status.Name)
def test_error_of_reply(status):
    error = error_of_reply(status, "the dog ate it")
    assert type(error) is EXCEPTIONS[status]
    assert error.status == status
    assert str(error) == f"the worker answered {pb.Status.Name(status)}: the dog ate it"
    assert isinstance(error, RemoteError)
    assert isinstance(error, SplitpointError)


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (FrameCorruptError, [pb.CORRUPT]),
        (FrameExpiredError, [pb.EXPIRED]),
        (OverloadedError, [pb.OVERLOADED, pb.STOPPING]),
        (FrameCancelledError, [pb.CANCELLED]),
        (FrameFailedError, [pb.INTERNAL]),
        (
            FrameRejectedError,
            [
                *(pb.MALFORMED, pb.OUT_OF_RANGE, pb.MISMATCH, pb.TOO_LARGE),
                *(pb.UNKNOWN_CODEC, pb.UNDECODABLE),
            ],
        ),
    ],
)
def test_what_a_caller_can_tell_apart(error, statuses):
    assert [status for status in EXCEPTIONS if EXCEPTIONS[status] is error] == statuses
    if len(statuses) == 1:
        assert error("raised here").status == statuses[0]


@pytest.mark.parametrize("status", [pb.STATUS_UNSPECIFIED, pb.OK, 15, 2**31 - 1, -1])
def test_status_that_is_no_error_or_unknown(status):
    error = error_of_reply(status, "hm")
    assert type(error) is FrameFailedError
    assert error.status == status
    assert str(error) == f"the worker answered {status}: hm"


def test_status_belongs_to_the_one_error():
    assert error_of_reply(pb.STOPPING, "").status == pb.STOPPING
    assert OverloadedError("full").status == pb.OVERLOADED
    assert FrameRejectedError("no").status == pb.INTERNAL


def test_long_reasons_are_cut():
    assert len(str(error_of_reply(pb.INTERNAL, "x" * 9999))) < 400


def test_what_the_worker_says_moves_no_cursor_and_adds_no_line():
    error = error_of_reply(pb.INTERNAL, HOSTILE)
    assert "gone" in str(error)
    assert str(error).isprintable()
    assert "all is lost" not in str(error)
