"""Who asks for figures, and does not get on with it, takes nothing that others need."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily
from splitpoint.cloud import metrics_server
from splitpoint.cloud.metrics_server import MetricsServer


class One:
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("one", "One.", value=1)


def scrape(server: MetricsServer) -> str:
    """What is told; nothing where there is no place."""
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=60) as page:
            return str(page.read().decode())
    except OSError:
        return ""


def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about")


def silent(server: MetricsServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    found = socket.create_connection((host, int(port)), timeout=60)
    found.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    return found


@pytest.mark.slow
def test_many_that_never_ask_have_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "MOST_ASKING", 4)
    server = MetricsServer("127.0.0.1:0", One())
    before = threading.active_count()
    sockets = [silent(server) for _ in range(40)]
    try:
        assert all(map(_is_hung_up, sockets[4:]))  # the first four have the places
        until(lambda: threading.active_count() - before <= 2 * 4)  # each with its timer
    finally:
        for each in sockets:
            each.close()
        server.close()


def _is_hung_up(each: socket.socket) -> bool:
    try:
        return each.recv(1) == b""
    except ConnectionError:
        return True


def test_who_never_asks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "MOST_ASKING", 1)
    monkeypatch.setattr(metrics_server, "SCRAPE_S", 0.1)
    server = MetricsServer("127.0.0.1:0", One())
    try:
        with silent(server) as first:
            assert _is_hung_up(first)
        monkeypatch.setattr(metrics_server, "SCRAPE_S", 60.0)
        until(lambda: "one 1.0" in scrape(server))  # once the place is free
    finally:
        server.close()
