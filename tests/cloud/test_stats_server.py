"""`serve --http`: for this machine alone, never for a page of another site, and never for long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from command import Command
from local_worker import local_worker
from patience import PATIENCE_S, until
from splitpoint.cli.service.worker_page import worker_page
from splitpoint.cloud import stats_server
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.stats_server import check_http
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto.address import AddressError, split_address


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {"http": "127.0.0.1:0"}


class Asker:
    """One connection, and what comes back on it."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Asker:
        host, port = split_address(self._address)
        self._reader, self.writer = await asyncio.open_connection(host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        """The status and the document."""
        status, self.head, body = await self.get(path, method, **headers)
        return status, json.loads(body) if body else None

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
        """The status, the headers, and the body."""
        given = {"Host": self._address, "Connection": "close"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in given.items()),
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head, _, body = (await self.rest()).partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self._reader.read(), PATIENCE_S)


@pytest.fixture
async def asker(worker: Worker) -> AsyncIterator[Asker]:
    async with Asker(worker.http_address) as found:
        yield found


async def test_health_and_figures(worker: Worker, small_bundle: Bundle) -> None:
    async with Asker(worker.http_address) as asker:
        assert await asker.ask("/healthz") == (200, {"status": "ok"})
    async with Asker(worker.http_address) as asker:
        status, document = await asker.ask("/stats")
    assert status == 200
    assert document["serving"]
    assert document["models"][0]["digest"] == small_bundle.digest
    assert "nosniff" in asker.head
    assert "default-src 'none'" in asker.head
    assert "Cache-Control: no-store" in asker.head


async def test_a_worker_without_a_model_is_not_healthy(tmp_path: Path) -> None:
    async with local_worker(watch=tmp_path, http="127.0.0.1:0") as worker:
        async with Asker(worker.http_address) as asker:
            assert await asker.ask("/healthz") == (503, {"status": "not serving"})
        async with Asker(worker.http_address) as asker:
            status, document = await asker.ask("/stats")
    assert (status, document["models"]) == (200, [])


@pytest.mark.parametrize("host", ["localhost:8081", "127.0.0.1", "[::1]:80", "LOCALHOST"])
async def test_names_of_this_machine(asker: Asker, host: str) -> None:
    assert (await asker.ask("/healthz", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8081", "192.0.2.1", "unix:80", "", "localhost.evil.example"],
)
async def test_a_name_that_was_made_to_lead_here_gets_nothing(asker: Asker, host: str) -> None:
    status, document = await asker.ask("/stats", Host=host)
    assert status == 421
    assert document.keys() == {"error"}


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}],
)
async def test_a_page_of_another_site_gets_nothing(asker: Asker, headers: dict[str, str]) -> None:
    assert (await asker.ask("/stats", **headers))[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/page.css", 404),
        ("GET", "/stats/../etc/passwd", 404), ("POST", "/stats", 405),
        ("DELETE", "/healthz", 405), ("HEAD", "/healthz", 200),
    ],
)  # fmt: skip
async def test_what_there_is_not(asker: Asker, method: str, path: str, status: int) -> None:
    found, document = await asker.ask(path, method)
    assert found == status
    assert (document is None) == (method == "HEAD")


async def test_what_is_no_http_ends_its_own_connection(worker: Worker) -> None:
    for garbage in (b"\x00" * 9000, b"GET /stats HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"):
        async with Asker(worker.http_address) as asker:
            asker.writer.write(garbage)
            assert b"200" not in (await asker.rest()).partition(b"\r\n")[0]
    async with Asker(worker.http_address) as asker:
        assert (await asker.ask("/healthz"))[0] == 200


async def test_connections_are_bounded_and_free_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_server, "MOST_CONNECTIONS", 3)
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(Asker(worker.http_address)) for _ in range(3)]
        await asyncio.sleep(0.1)
        async with Asker(worker.http_address) as asker:
            with pytest.raises((ConnectionError, IndexError)):
                await asker.ask("/healthz")
        assert len(silent) == 3

    async def answers() -> bool:
        async with Asker(worker.http_address) as asker:
            try:
                return (await asker.ask("/healthz"))[0] == 200
            except (ConnectionError, IndexError):
                return False

    for _ in range(100):
        if await answers():
            return
        await asyncio.sleep(0.05)
    pytest.fail("no place is free again")


async def test_who_never_asks_is_not_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_server, "LIFE_S", 0.1)
    async with Asker(worker.http_address) as asker:
        asker.writer.write(b"GET /stats HTTP/1.1\r\nHost: ")
        assert await asker.rest() == b""


@pytest.mark.parametrize("listen", ["0.0.0.0:8081", "192.0.2.2:8081", "[::]:8081", "worker:8081"])
def test_where_it_may_listen(listen: str) -> None:
    with pytest.raises(ServeError, match="nothing says who may ask"):
        check_http(listen)


def test_a_port_alone_is_no_address() -> None:
    with pytest.raises(AddressError, match="has no port: give HOST:PORT"):
        check_http("8081")


def test_a_port_that_is_in_use_is_said(small_bundle: Bundle, command: Command) -> None:
    done = command(
        "serve", small_bundle.folder, "--listen", "127.0.0.1:0", "--http", "0.0.0.0:8081"
    )
    assert done.returncode == 1
    assert "other machines reach --http 0.0.0.0:8081" in done.stderr.splitlines()[-1]


async def test_the_port_is_given_back(small_bundle: Bundle) -> None:
    async with local_worker(small_bundle, http="127.0.0.1:0") as worker:
        address = worker.http_address
        with pytest.raises(ServeError, match="cannot listen on"):
            async with local_worker(small_bundle, http=address):
                pass
    async with local_worker(small_bundle, http=address) as worker:
        await until(lambda: worker.http_address == address)


async def test_a_page_beside_the_figures(small_bundle: Bundle) -> None:
    """A link of another site may open it; what it loads is its own."""
    async with local_worker(small_bundle, http="127.0.0.1:0", http_files=worker_page()) as worker:
        for path, kind in (
            ("/", "text/html"), ("/worker.js", "text/javascript"), ("/worker.css", "text/css"),
            ("/page.css", "text/css"), ("/icon.svg", "image/svg+xml"),
        ):  # fmt: skip
            async with Asker(worker.http_address) as asker:
                status, head, body = await asker.get(path)
            assert status == 200
            assert f"Content-Type: {kind}; charset=utf-8" in head
            assert "default-src 'none'; script-src 'self'" in head
            assert len(body) > 100
        link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        for path, expected in (("/", 200), ("/worker.js", 403), ("/stats", 403)):
            async with Asker(worker.http_address) as asker:
                assert (await asker.get(path, **link))[0] == expected


async def test_what_is_no_http_is_refused_and_leaves_no_traceback(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    for sent in (b"GET /stats HTTP/9.x", b"GET /stats HTTP/1.1\r\nno header", b"\x00\x16\x03"):
        async with Asker(worker.http_address) as asker:
            asker.writer.write(sent + b"\r\n\r\n")
            head, _, body = (await asker.rest()).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == 400
        assert json.loads(body) == {"error": "Bad Request"}
        assert b"nosniff" in head
    assert not [record for record in caplog.records if record.exc_info]
