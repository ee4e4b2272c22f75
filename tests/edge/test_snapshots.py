"""Cameras that give a picture for each request."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from splitpoint.edge import Given
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.find import find_source
from splitpoint.edge.sources.live import LiveSource
from splitpoint.edge.sources.snapshots import open_http
from splitpoint.edge.sources.source import InputFeed
from splitpoint.partition.picture import PictureInput

PICTURE = PictureInput(resize_px=24, height_px=24, width_px=24)
FEED = InputFeed(model="m", specs=(PICTURE.spec,), picture=PICTURE)
Answer = Callable[[BaseHTTPRequestHandler], None]


def jpeg(grey: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), grey, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **more: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "image/jpeg")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in more.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def camera(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def some(source: LiveSource, count: int) -> list[Given]:
    await source.open()
    try:
        async with aclosing(source.frames(FEED)) as frames:
            return [await anext(frames) for _ in range(count)]
    finally:
        await source.close()


async def test_it_is_asked_at_its_rate_and_no_more() -> None:
    asked: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(time.monotonic())
        send(handler, jpeg(10 * len(asked)))

    with camera(answer) as host:
        source = find_source(f"http://{host}/snapshot.jpg", fps=20)
        assert isinstance(source, LiveSource)
        found = await some(source, 6)
    assert all(given.error is None for given in found)
    greys = [int(given.inputs["pixels"].mean()) for given in found]
    assert greys == sorted(greys)
    assert len(asked) == 7  # and once to see what it is
    assert asked[-1] - asked[1] == pytest.approx(5 / 20, abs=0.15)


async def test_damaged_pictures_are_failed_frames_and_a_camera_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            send(handler, b"no picture")
        elif asked in (5, 6):
            send(handler, b"", 503)
        else:
            send(handler, jpeg(100))

    with camera(answer) as host:
        source = LiveSource(
            "door", lambda: open_http(f"http://{host}/s.jpg", 100), first_pause_s=0.01
        )
        found = await some(source, 5)
    assert [given.error is None for given in found] == [True, False, True, True, True]
    assert [record.getMessage()[:12] for record in caplog.records] == [
        "door is lost",
        "door is back",
    ]


def test_it_lets_in_who_has_the_password() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        told = handler.headers.get("Authorization", "")
        if told == f"Basic {base64.b64encode(b'me:p@ss').decode()}":
            send(handler, jpeg(100))
        else:
            send(handler, b"", 401, WWW_Authenticate='Basic realm="camera"')

    with camera(answer) as host:
        capture = open_http(f"http://me:p%40ss@{host}/s.jpg", 100)
        assert capture.read() is not None
        with pytest.raises(SourceError, match="status 401") as caught:
            open_http(f"http://me:wrong@{host}/s.jpg?token=secret", 100)
    assert "wrong" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_it_is_followed_to_no_other_host() -> None:
    visits: list[str] = []

    def other(handler: BaseHTTPRequestHandler) -> None:
        visits.append(handler.path)
        send(handler, jpeg(100))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/here":
            send(handler, jpeg(100))
        elif handler.path == "/same":
            send(handler, b"", 302, Location="/here")
        else:
            send(handler, b"", 302, Location=f"http://localhost:{port}/stolen")

    with camera(other) as far, camera(answer) as host:
        port = far.rpartition(":")[2]
        assert open_http(f"http://{host}/same", 100).read() is not None
        with pytest.raises(SourceError, match="status 302"):
            open_http(f"http://{host}/away", 100)
    assert not visits


def test_what_does_not_answer() -> None:
    for url in ("http://u:secret@127.0.0.1:9/s.jpg", "http://u:secret@[::1/x", "http://u:secret@"):
        with pytest.raises(SourceError) as caught:
            open_http(url, 1)
        assert "secret" not in str(caught.value)
