"""Which proxy stands in the way, and that an error says so."""

from __future__ import annotations

import grpc
import pytest
from splitpoint.edge.link.call_error import error_of_call
from splitpoint.proto.proxy import VARIABLES, proxy_of

HTTP = {"http_proxy": "http://me:secret@10.0.0.1:3128/"}


def test_the_first_of_the_variables_counts_and_is_shown_without_a_password() -> None:
    assert str(proxy_of("worker:7070", HTTP)) == "the proxy http://10.0.0.1:3128/ (http_proxy)"
    every = {name: f"http://{name}:1" for name in VARIABLES}
    assert str(proxy_of("worker:7070", every)) == "the proxy http://grpc_proxy:1 (grpc_proxy)"
    assert proxy_of("worker:7070", {}) is None
    assert proxy_of("worker:7070", {"http_proxy": ""}) is None


@pytest.mark.parametrize(
    ("exceptions", "server", "goes"),
    [
        ("", "worker.example:7070", True),
        ("*", "worker.example:7070", False),
        ("other, Example", "worker.example:7070", False),
        (".example", "worker.example:7070", False),
        ("*.example", "worker.example:7070", False),
        ("10.1.0.0/16", "10.1.2.3:7070", False),
        ("10.1.0.0/16", "10.2.2.3:7070", True),
        ("fd00::/8", "[fd00::1]:7070", False),
        ("localhost", "[2001:db8::1]:7070", True),
    ],
)
def test_exceptions(exceptions: str, server: str, goes: bool) -> None:
    assert (proxy_of(server, HTTP | {"no_proxy": exceptions}) is not None) is goes


@pytest.mark.parametrize("server", ["127.0.0.1:7", "localhost:7", "[::1]:7", "unix:/run/worker"])
def test_none_leads_to_this_machine(server: str) -> None:
    assert proxy_of(server, HTTP) is None


@pytest.mark.parametrize(
    "details", ["connection refused", "Socket closed", "WRONG_VERSION_NUMBER", ""]
)
def test_errors_name_it(details: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", HTTP["http_proxy"])
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details
    )
    line = str(error_of_call(error, "worker.example:7070"))
    assert "through the proxy http://10.0.0.1:3128/ (http_proxy)" in line
    assert "secret" not in line
    assert "proxy" not in str(error_of_call(error, "127.0.0.1:7070"))
