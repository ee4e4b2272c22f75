"""mDNS itself, on loopback: what one end registers the other one hears."""

from __future__ import annotations

import asyncio
import socket

import pytest
from patience import until
from splitpoint.edge.discovery.announced import Wanted
from splitpoint.edge.discovery.network import Record
from splitpoint.edge.discovery.over_zeroconf import MOST_NAMES, ZeroconfNetwork
from splitpoint.edge.discovery.search import Search
from splitpoint.proto.announcement import SERVICE_TYPE
from zeroconf import (
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
    IPVersion,
    ServiceInfo,
)
from zeroconf.asyncio import AsyncZeroconf

LOOPBACK = ["127.0.0.1"]


def info(label: str, port: int = 7070, **entries: bytes) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE, f"{label}.{SERVICE_TYPE}", port=port, properties=entries,
        parsed_addresses=["192.0.2.10"], server=f"splitpoint-test-{label[:8]}.local.",
    )  # fmt: skip


async def test_what_is_announced_is_heard_until_it_is_withdrawn() -> None:
    heard: dict[str, Record | None] = {}
    async with ZeroconfNetwork(LOOPBACK).listening(heard.__setitem__):
        other = AsyncZeroconf(interfaces=LOOPBACK, ip_version=IPVersion.V4Only)
        mine = info("one", v=b"1")
        try:
            await other.async_register_service(mine)
            await until(lambda: mine.name in heard)
            found = heard[mine.name]
            assert found is not None
            assert found.addresses == (socket.inet_aton("192.0.2.10"),)
            assert (found.port, found.entries[b"v"]) == (7070, b"1")
            await other.async_update_service(info("one", v=b"2"))
            await until(lambda: getattr(heard[mine.name], "entries", {}).get(b"v") == b"2")
        finally:
            await other.async_close()
        await until(lambda: heard[mine.name] is None)


async def test_more_names_than_are_followed() -> None:
    heard: dict[str, Record | None] = {}
    async with ZeroconfNetwork(LOOPBACK).listening(heard.__setitem__):
        other = AsyncZeroconf(interfaces=LOOPBACK, ip_version=IPVersion.V4Only)
        try:
            for number in range(MOST_NAMES + 20):
                other.zeroconf.registry.async_add(info(f"n{number:03}", v=b"x" * 200))
            await until(lambda: len(heard) == MOST_NAMES)
            await asyncio.sleep(0.3)
            assert len(heard) == MOST_NAMES
        finally:
            await other.async_close()


def hostile(label: str, txt: bytes, port: int) -> DNSOutgoing:
    """The records of a worker as no worker sends them: zeroconf itself would refuse to."""
    name, host, unique = f"{label}.{SERVICE_TYPE}", "evil.local.", 0x8001
    out = DNSOutgoing(0x8400)
    for record in (
        DNSPointer(SERVICE_TYPE, 12, 1, 120, name),
        DNSService(name, 33, unique, 120, 0, 0, port, host),
        DNSText(name, 16, unique, 120, txt),
        DNSAddress(host, 1, unique, 120, socket.inet_aton("192.0.2.66")),
    ):
        out.add_answer_at_time(record, 0)
    return out


@pytest.mark.parametrize(
    ("label", "txt", "port"),
    [
        ("\x1b[2J\x07evil", b"\x03v=1", 7070),
        ("evil\nerror: send money", b"\x03v=1", 7070),
        ("a.b.c", b"\x03v=1", 7070),
        ("x" * 63, b"\xff" * 8000, 7070),  # lengths that lead beyond the record
        ("evil", b"\xffm0=" + b"a" * 251 + b"\x03v=1" * 1500, 0),
        ("evil", b"", 65535),
    ],
)
async def test_hostile_records_end_nothing(label: str, txt: bytes, port: int) -> None:
    """What is heard of them is left out or can be shown, and the next worker is heard."""
    search = Search(ZeroconfNetwork(LOOPBACK), Wanted(tls=False))
    heard: dict[str, Record | None] = {}

    def hear(name: str, record: Record | None) -> None:
        heard[name] = record
        search.heard(name, record)

    async with ZeroconfNetwork(LOOPBACK).listening(hear):
        other = AsyncZeroconf(interfaces=LOOPBACK, ip_version=IPVersion.V4Only)
        good = info("good", v=b"1")
        try:
            await other.zeroconf.async_wait_for_start()
            other.zeroconf.async_send(hostile(label, txt, port))
            await other.async_register_service(good)
            await until(lambda: heard.get(good.name))
            assert "no worker announces itself" in str(search.nobody())  # none that is whole
            assert all(name.isprintable() for name in heard)
            assert (f"{label}.{SERVICE_TYPE}" in heard) == label.isprintable()
        finally:
            await other.async_close()


async def test_who_takes_connections() -> None:
    network = ZeroconfNetwork(LOOPBACK)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await network.reaches(f"127.0.0.1:{port}")
    server.close()
    await server.wait_closed()
    assert not await network.reaches(f"127.0.0.1:{port}")


async def test_a_network_that_fails_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**options: object) -> AsyncZeroconf:
        raise OSError("multicast is not allowed here")

    monkeypatch.setattr("splitpoint.edge.discovery.over_zeroconf.EVERY_S", 0.01)
    monkeypatch.setattr("zeroconf.asyncio.AsyncZeroconf", refused)
    async with ZeroconfNetwork(LOOPBACK).listening(lambda name, record: None):
        await until(lambda: "cannot listen for workers" in caplog.text)
        await asyncio.sleep(0.2)
    assert caplog.text.count("cannot listen for workers") == 1
