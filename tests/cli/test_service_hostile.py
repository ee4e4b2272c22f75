"""What is sent to the service to harm it costs memory for a moment, and frames go on."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from http_service import FORM, form, picture, serving
from patience import PATIENCE_S
from small_tasks import task_bundle
from splitpoint.edge import Given
from splitpoint.edge.sources.source import InputFeed
from splitpoint.partition.bundle.bundle import Bundle

MUTATED = 600
GROWTH = 3_000_000  # bytes; one kept request of those below is 60 kB or more

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def rest_of(streams: Streams) -> bytes:
    """What still comes, until the other end closes."""
    reader, writer = streams
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def said(answer: bytes) -> tuple[int, dict[str, object]]:
    """The status and the document of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def test_a_body_that_says_that_it_is_too_large(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        streams = await served.connect()
        streams[1].write(post("/infer", "Content-Length: 100000000") + b"x" * 100)
        status, document = said(await rest_of(streams))
    assert (status, document["success"]) == (413, False)


async def test_a_body_of_100_mb_that_does_not_say_so(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        streams = await served.connect()
        streams[1].write(post("/infer", "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"

        async def send() -> int:
            """How many megabytes are taken."""
            for sent in range(100):
                streams[1].write(chunk)
                try:
                    await asyncio.wait_for(streams[1].drain(), 5)
                except (ConnectionError, asyncio.TimeoutError):
                    return sent
            return 100

        sending = asyncio.create_task(send())
        tracemalloc.start()
        answer = await rest_of(streams)
        assert await sending <= 100
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6
        if answer:  # else the connection was reset before it could be read
            assert said(answer)[0] == 413
        assert (await served.ask("POST", "/infer", picture())).status == 200


@pytest.mark.parametrize("path", ["/infer", "/v1/vision/detection"])
async def test_a_slow_body(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpoint.cli.service.bodies.SLOWEST_S", 0.3)
    monkeypatch.setattr("splitpoint.cli.service.bodies.BEGIN_S", 0.3)
    async with serving(task_bundle("yolo")) as served:
        streams = await served.connect()
        kind = f"Content-Type: {FORM['Content-Type']}"
        streams[1].write(post(path, "Content-Length: 5000", kind) + form(("a", b"b"))[:50])
        status, document = said(await rest_of(streams))
    assert (status, document["success"]) == (408, False)


@pytest.mark.parametrize("begin", [b"", b"POST /infer HTTP/1.1\r\nHost: local"])
async def test_headers_that_do_not_come(
    small_bundle: Bundle, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitpoint.cli.service.server.IDLE_S", 0.3)
    async with serving(small_bundle) as served:
        streams = await served.connect()
        streams[1].write(begin)
        assert await rest_of(streams) == b""


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-{number}: y" for number in range(2000)],
        ["X: " + "y" * 100_000],
        ["Cookie: " + "a=b; " * 10_000],
        ["no header at all"],
        ["Content-Length: -1"],
        ["Content-Length: 1", "Content-Length: 2"],
        ["Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Host: other"],
    ],
    ids=lambda headers: headers[0][:20],
)
async def test_headers_that_are_none_or_too_many(
    small_bundle: Bundle, headers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(small_bundle) as served:
        streams = await served.connect()
        streams[1].write(post("/infer", *headers))
        answer = await rest_of(streams)
        if answer:
            status, document = said(answer)
            assert (status, document["success"]) == (400, False)
        assert (await served.ask("GET", "/healthz")).status == 200
    assert "Traceback" not in caplog.text


async def test_connections_too_many(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpoint.cli.service.server.MOST_CONNECTIONS", 8)
    async with serving(small_bundle) as served:
        kept = [await served.connect() for _ in range(8)]
        await asyncio.sleep(0.05)
        answers = [await rest_of(await served.connect()) for _ in range(20)]
        assert {said(answer)[0] for answer in answers} == {503}
        for _, writer in kept:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await served.ask("GET", "/healthz")).status == 200


async def test_who_does_not_read_is_not_waited_for(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitpoint.cli.service.server.SEND_S", 0.3)
    async with serving(small_bundle) as served:
        _, writer = await served.connect()
        request = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request * 5000)  # 35 MB of answers

        async def is_cut_off() -> None:
            while True:
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.write(request)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(is_cut_off(), PATIENCE_S)
        writer.close()
        assert (await served.ask("GET", "/healthz")).status == 200


def mutated(rng: random.Random) -> bytes:
    """A request in which some bytes are others, left out, or there twice."""
    file = picture(rng.randrange(8), kind=rng.choice(["PNG", "JPEG"]))
    kind = f"Content-Type: {FORM['Content-Type']}"
    body = form(("api_key", b""), ("min_confidence", b"0.3"), file=file)
    good = rng.choice([
        post("/v1/vision/detection", kind, f"Content-Length: {len(body)}") + body,
        post("/infer", f"Content-Length: {len(file)}") + file,
        post("/infer", "Transfer-Encoding: chunked") + b"%x\r\n" % len(file) + file
        + b"\r\n0\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nCookie: splitpoint=x\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\ntoken=x",
    ])  # fmt: skip
    changed = bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        place = rng.randrange(len(changed))
        if rng.random() < 0.5:  # where it hurts: in the head
            place = rng.randrange(min(len(changed), 300))
        what = rng.random()
        if what < 0.5:
            changed[place] = rng.randrange(256)
        elif what < 0.75:
            del changed[place : place + rng.randrange(1, 9)]
        else:
            changed[place:place] = changed[place : place + rng.randrange(1, 9)]
    return bytes(changed)


async def test_mutated_requests_leave_memory_and_frames_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = task_bundle("yolo")
    feed, rng = InputFeed.of(bundle.manifest), random.Random(0)
    given, over = feed.of_content(picture(), "own"), asyncio.Event()

    async def frames() -> AsyncIterator[Given]:
        while not over.is_set():
            yield given
            await asyncio.sleep(0.01)

    async with serving(bundle, frames=frames(), sources=("own",)) as served:

        async def send(count: int) -> int:
            answered = 0
            for _ in range(count):
                streams = await served.connect()
                try:
                    streams[1].write(mutated(rng))
                    answered += bool(await asyncio.wait_for(streams[0].read(100), 0.2))
                except (ConnectionError, asyncio.TimeoutError):  # the rest of it is waited for
                    pass
                streams[1].close()
            return answered

        await send(100)  # what is allocated once
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        own_before = (await served.ask("GET", "/stats")).json["sources"][0]["outcomes"]["local"]
        answered = await asyncio.gather(*(send(MUTATED // 12) for _ in range(12)))
        served.results.clear()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert (await served.ask("POST", "/infer", picture())).status == 200
        stats = (await served.ask("GET", "/stats")).json
        assert stats["requests_waiting"] == 0
        own = stats["sources"][0]["outcomes"]
        assert own["failed"] == 0
        assert own["local"] > own_before
        over.set()
    assert sum(answered) > MUTATED / 2
    assert grown < GROWTH
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
