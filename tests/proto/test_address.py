"""Which addresses are this machine's own; whatever is doubtful is not."""

from __future__ import annotations

import pytest
from splitpoint.proto.address import (
    AddressError,
    host_of,
    household_of,
    is_loopback,
    is_own_host,
    join_address,
    split_address,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:7070", "127.8.9.10:0", "localhost:7070", "[::1]:7070", "[::ffff:127.0.0.1]:1",
        "ipv4:127.0.0.1:4242", "ipv6:%5B::1%5D:4242", "dns:///localhost:1", "unix:/run/s.sock",
        "unix-abstract:name",
    ],
)  # fmt: skip
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "", ":", "0.0.0.0:7070", "[::]:7070", ":7070", "*:7070", "10.0.0.1:7070", "7070",
        "256.0.0.1:1", "worker.example:7070", "localhost.example:1", "unix.example:7070",
        "127.0.0.1", "127.0.0.1.example:1", "ipv4:10.0.0.1:4242", "ipv6:%5B2001:db8::1%5D:4242",
        # gRPC takes several addresses in one.
        "ipv4:127.0.0.1:1,0.0.0.0:2", "ipv4:0.0.0.0:1,127.0.0.1:2", "[::ffff:10.0.0.1]:1",
    ],
)  # fmt: skip
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.2:1", "[::1]", "[::1]:8080"],
)
def test_own_hosts(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "", ":80", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80",
        "192.0.2.1", "0.0.0.0", "[::2]", "[::1]evil", "[::1", "::1", "unix:80", "unix:/run/s.sock",
        "ipv4:127.0.0.1:80", "dns:///localhost:80", "localhost:http", "localhost:123456",
        "user@localhost", "localhost/", "localhost ", "localhost\n", "xn--lcalhost-5oa",
    ],
)  # fmt: skip
def test_hosts_of_others(host: str) -> None:
    assert not is_own_host(host)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("a:7070", "a"), ("ipv4:10.0.0.1:4242", "10.0.0.1"), ("[::1]:1", "::1"),
        ("ipv6:%5B2001:db8::1%5D:4242", "2001:db8::1"), ("unix:/run/s.sock", ""),
    ],
)  # fmt: skip
def test_host(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("worker.example:7070", "worker.example", 7070), ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:7070", "::1", 7070), ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1), (":7070", "", 7070),
    ],
)  # fmt: skip
def test_parts(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no port"), ("worker", "has no port"), ("worker:", "has no port"),
        ("7070", "has no port"), ("worker:7x", "has no port"), ("worker:65536", "up to 65535"),
        (f"worker:{'9' * 5000}", "up to 65535"),
        ("worker:\u0667", "has no port"), ("[::1]", "has no port"), ("::1", "brackets"),
        ("::1:7070", "brackets"), ("2001:db8::1", "brackets"), ("[worker]:7070", "no IPv6 address"),
    ],
)  # fmt: skip
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(AddressError, match=words):
        split_address(text)


@pytest.mark.parametrize(
    ("host", "household"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("worker.example", "worker.example"),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_has_an_address(host: str, household: str) -> None:
    assert household_of(host) == household
