"""What systemd is told, over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from splitpoint.cli.shell.systemd import Systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


async def test_a_service_is_ready_alive_and_stopping(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "100000"}
    systemd = Systemd({**environ, "WATCHDOG_PID": str(os.getpid())})
    systemd.ready()
    assert manager.recv(100) == b"READY=1"
    loop = asyncio.get_running_loop()
    alive = asyncio.create_task(systemd.keep_alive())
    start = loop.time()
    for _ in range(4):
        assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"
    assert 0.1 < loop.time() - start < 1  # every 50 ms
    alive.cancel()
    await asyncio.gather(alive, return_exceptions=True)
    systemd.stopping()
    assert manager.recv(100) == b"STOPPING=1"


async def test_nobody_is_told_where_nobody_asks(manager: socket.socket) -> None:
    for environ in (
        {},
        {"WATCHDOG_USEC": "100000"},
        {"NOTIFY_SOCKET": "/nowhere/notify"},
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "soon"},
    ):
        systemd = Systemd(environ)
        assert systemd.watchdog_s == 0
        await asyncio.wait_for(systemd.keep_alive(), 1)
    Systemd({}).ready()
    Systemd({"NOTIFY_SOCKET": "/nowhere/notify"}).ready()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_an_abstract_socket() -> None:
    name = f"splitpoint-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(10)
        Systemd({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listening.recv(100) == b"READY=1"
