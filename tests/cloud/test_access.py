"""Who is let in, and under which name; without a server."""

from __future__ import annotations

import hashlib

import grpc
import pytest
from splitpoint.cloud.access.access import Access, AccessError
from splitpoint.cloud.access.refusals import Refusal
from splitpoint.cloud.access.tokens import Client, Tokens

FAR, NEAR = "ipv4:192.0.2.7:4242", "ipv6:%5B::1%5D:4242"
GATE, DOOR = Client(name="gate"), Client(name="door")
TOKENS = Tokens({hashlib.sha256(b"secret").hexdigest(): GATE}, {"door": DOOR})


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {token}")]


def named(*names: bytes) -> dict[str, list[bytes]]:
    return {"transport_security_type": [b"ssl"], "x509_common_name": list(names)}


def test_names_without_tokens() -> None:
    access = Access(None, tls=True)
    assert access.client((), named(b"gate"), FAR) == GATE
    assert access.client((), {}, FAR) == Client(name="192.0.2.7", is_address=True)
    assert access.client((), named(), NEAR) == Client(name="::1", is_address=True)
    assert access.client((), named(b"a", b"b"), FAR).is_address
    assert access.client((), {}, "unix:/run/s").name == "unix:/run/s"
    hostile = access.client((), named(b"\xff\n\x1b[0m" + b"x" * 500), FAR).name
    assert hostile.isprintable()
    assert len(hostile) == 80


def test_a_token_goes_before_the_certificate() -> None:
    access = Access(TOKENS, tls=True)
    assert access.client(bearer("secret"), named(b"door"), FAR) is GATE
    assert access.client([("authorization", b"bearer secret")], {}, FAR) is GATE
    assert access.client((), named(b"door"), FAR) is DOOR


@pytest.mark.parametrize(
    ("metadata", "names", "reason"),
    [
        ((), (), Refusal.NO_TOKEN),
        ((), (b"stranger",), Refusal.NO_TOKEN),
        ((), (b"gate",), Refusal.NO_TOKEN),  # its name alone is not enough
        (bearer("Secret"), (), Refusal.WRONG_TOKEN),
        (bearer("wrong"), (b"door",), Refusal.WRONG_TOKEN),
        (bearer(""), (b"door",), Refusal.WRONG_TOKEN),
        ([("authorization", "Basic secret")], (), Refusal.WRONG_TOKEN),
        ([("authorization", "secret")], (), Refusal.WRONG_TOKEN),
        (bearer("secret") * 2, (), Refusal.WRONG_TOKEN),
        (bearer("\udcff"), (), Refusal.WRONG_TOKEN),
    ],
)
def test_who_is_not_let_in(metadata: list, names: tuple[bytes, ...], reason: Refusal) -> None:
    with pytest.raises(AccessError) as caught:
        Access(TOKENS, tls=True).client(metadata, named(*names), FAR)
    assert caught.value.status is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.reason is reason
    assert "secret" not in str(caught.value)


def test_a_token_without_tls_is_for_this_machine_only() -> None:
    for tokens in (TOKENS, None):
        access = Access(tokens, tls=False)
        access.client(bearer("secret"), {}, NEAR)
        with pytest.raises(AccessError, match="without TLS") as caught:
            access.client(bearer("secret"), {}, FAR)
        assert caught.value.reason is Refusal.TOKEN_IN_CLEAR
    assert Access(TOKENS, tls=False, token_in_clear=True).client(bearer("secret"), {}, FAR) is GATE
