"""What becomes of a failed call."""

import asyncio

import grpc
import pytest
from patience import PATIENCE_S
from raw_http2 import resetting_server
from splitpoint.cloud.wire.mask_errors import WORDS
from splitpoint.edge.link.call_error import error_of_call
from splitpoint.proto.status import (
    NO_ROOM,
    PermissionDeniedError,
    ProtocolError,
    RefusedError,
    RemoteError,
    UnauthenticatedError,
    UnreachableError,
    WireError,
)

SERVER = "cloud.example:50051"
REFUSED = {
    "FAILED_PRECONDITION": RefusedError,
    "NOT_FOUND": RefusedError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "INVALID_ARGUMENT": RefusedError,
}
UNREACHABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNIMPLEMENTED"}


def failed_call(code, details=None):
    metadata = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, metadata, metadata, details=details)


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_error_of_call(code):
    expected = ProtocolError
    if code.name in REFUSED:
        expected = REFUSED[code.name]
    elif code.name in UNREACHABLE:
        expected = UnreachableError
    for details in (None, "", "why", "why\nand where", "\n", "x" * 9999):
        error = error_of_call(failed_call(code, details), SERVER)
        assert type(error) is expected
        assert isinstance(error, WireError)
        assert not isinstance(error, RemoteError)
        assert SERVER in str(error)
        assert len(str(error)) < 600
        if details in ("why", "why\nand where"):
            assert "why" in str(error)


def test_unreachable_says_what_to_do_in_one_line():
    error = error_of_call(failed_call(grpc.StatusCode.UNAVAILABLE, "refused\ntrace"), SERVER)
    assert error.what == f"no worker answers at {SERVER} (refused)"
    assert "splitpoint serve" in error.remedy
    silent = error_of_call(failed_call(grpc.StatusCode.DEADLINE_EXCEEDED), SERVER)
    assert silent.what == f"no worker answers at {SERVER} (deadline_exceeded)"


def test_what_the_other_end_says_moves_no_cursor_and_adds_no_line():
    hostile = "gone\x1b[2J\r\x07 \u202eme\nerror: all is lost"
    for code in grpc.StatusCode:
        error = error_of_call(failed_call(code, hostile), SERVER)
        assert "gone" in str(error)
        assert str(error).isprintable()
        assert "all is lost" not in str(error)


@pytest.mark.parametrize("number", [0, 1, 2, 7, 8])
def test_a_stream_that_is_reset_is_no_breach_of_the_protocol(number):
    async def error_of_a_call():
        async with (
            resetting_server(number) as server,
            grpc.aio.insecure_channel(server) as channel,
        ):
            await asyncio.wait_for(channel.unary_unary("/any/method")(b""), PATIENCE_S)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(error_of_a_call())
    error = error_of_call(caught.value, SERVER)
    assert type(error) is UnreachableError
    assert f"RST_STREAM with error code {number}" in error.what
    assert "splitpoint serve" in error.remedy


def test_what_a_worker_says_of_its_own_failure_stays():
    error = error_of_call(failed_call(grpc.StatusCode.INTERNAL, WORDS), SERVER)
    assert type(error) is ProtocolError
    assert WORDS in str(error)


def test_some_other_server_is_recognised():
    error = error_of_call(failed_call(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), SERVER)
    assert "splitpoint serve" in error.remedy
    assert error_of_call(failed_call(grpc.StatusCode.NOT_FOUND, "no model"), SERVER).remedy == ""


def test_call_error_without_a_code():
    error = error_of_call(grpc.RpcError(), SERVER)
    assert type(error) is ProtocolError
    assert "UNKNOWN" in str(error)


def test_no_room_is_told_apart_from_a_message_that_is_too_large():
    full = failed_call(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{NO_ROOM}: the worker has 9 streams")
    assert type(error_of_call(full, SERVER)) is UnreachableError
    assert "the worker has 9 streams" in str(error_of_call(full, SERVER))
    large = failed_call(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max")
    assert type(error_of_call(large, SERVER)) is ProtocolError


@pytest.mark.parametrize(
    ("details", "remedy"),
    [
        ("... CERTIFICATE_VERIFY_FAILED: self signed certificate in chain", "--tls-ca"),
        ("Hostname Verification Check failed.", "its certificate is for other names"),
        ("SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("SSL_ERROR_SSL: TLSV1_ALERT_UNKNOWN_CA", "--tls-cert"),
    ],
)
def test_failed_handshakes_of_tls(details, remedy):
    error = error_of_call(failed_call(grpc.StatusCode.UNAVAILABLE, details), SERVER)
    assert type(error) is UnauthenticatedError
    assert remedy in str(error)
    assert SERVER in str(error)
