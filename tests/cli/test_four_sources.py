"""A video, a camera, snapshots and a folder in one run, beside three that misbehave."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image
from processes import MAIN, background
from rtsp_camera import rtsp_camera
from splitpoint.partition.bundle.bundle import Bundle

SECONDS, WARM_UP_S = 10.0, 2.0
RATES = {"film": 8.0, "door": 5.0, "gate": 4.0, "inbox": 4.0}
MOST_MB_A_SOURCE = 25.0


def jpeg(grey: int, size: tuple[int, int] = (320, 240)) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(grey).integers(0, 90, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise + np.uint8(grey)).save(file, "JPEG", subsampling="4:2:0")
    return file.getvalue()


@contextmanager
def snapshots(answer: Callable[[BaseHTTPRequestHandler], bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/snapshot.jpg"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def inbox(folder: Path, fps: float) -> Iterator[str]:
    """Pictures are moved in, whole, at that rate."""
    folder.mkdir()
    ended = threading.Event()

    def fill() -> None:
        begin_s, number = time.monotonic(), 0
        while not ended.wait(max(begin_s + number / fps - time.monotonic(), 0)):
            draft = folder.parent / f"{number}.part"
            draft.write_bytes(jpeg(number % 100))
            draft.rename(folder / f"{number:05}.jpg")
            number += 1

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield f"watch:{folder}"
    finally:
        ended.set()
        thread.join()


def film(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (320, 240))
    for number in range(400):
        writer.write(np.full((240, 320, 3), number % 200, np.uint8))
    writer.release()
    return path


@contextmanager
def good_sources(folder: Path) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        pictures = [jpeg(number % 100) for number in range(50)]
        yield {
            "film": str(film(folder / "film.avi")),
            "door": stack.enter_context(rtsp_camera(pictures * 40, 320, 240)),
            "gate": stack.enter_context(snapshots(lambda handler: pictures[0])),
            "inbox": stack.enter_context(inbox(folder / "inbox", 2 * RATES["inbox"])),
        }


@contextmanager
def bad_sources() -> Iterator[dict[str, str]]:
    sizes = iter(range(1 << 30))

    def hangs(handler: BaseHTTPRequestHandler) -> bytes:
        time.sleep(60)
        return b""

    def changes(handler: BaseHTTPRequestHandler) -> bytes:
        return jpeg(50, (64, 48) if next(sizes) % 2 else (1280, 960))

    with ExitStack() as stack:
        yield {
            "hangs": stack.enter_context(snapshots(hangs)),
            "garbage": stack.enter_context(snapshots(lambda handler: os.urandom(20_000))),
            "changes": stack.enter_context(snapshots(changes)),
        }


def ran(
    server: str, cache: Path, sources: dict[str, str], seconds: float = SECONDS
) -> tuple[Counter[str], float]:
    """Frames by source in `seconds`, and the process's resident megabytes."""
    given = [part for name, source in sources.items() for part in ("--source", f"{name}={source}")]
    paced = [part for name in sources for part in ("--fps", f"{name}={RATES.get(name, 2.0)}")]
    process = subprocess.Popen(
        [*MAIN, "run", "--server", server, "--split", "1", "--codec", "q8", "--json",
         "--cache", str(cache), *given, *paced],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found: Counter[str] = Counter()
    try:
        process.stdout.readline()
        begin_s = time.monotonic() + WARM_UP_S
        while (now_s := time.monotonic()) < begin_s + seconds:
            frame = json.loads(process.stdout.readline())
            if now_s >= begin_s:
                good = frame["outcome"] in ("answered", "local")
                name = frame["source_name"]
                found[name if good else f"{name} {frame['outcome']}"] += 1
        used_mb = psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.kill()
        process.communicate()
    return found, used_mb


@pytest.mark.slow
def test_each_has_its_rate_whatever_the_others_do(served_bundle: Bundle, tmp_path: Path) -> None:
    with (
        background(["serve", str(served_bundle.folder), "--listen", "127.0.0.1:0"]) as server,
        good_sources(tmp_path) as good,
        bad_sources() as bad,
    ):
        cache = tmp_path / "cache"
        _, alone_mb = ran(server, cache, {"gate": good["gate"]}, seconds=1.0)
        found, four_mb = ran(server, cache, good)
        beside, all_mb = ran(server, cache, good | bad)
    print(f"{alone_mb:.0f} MB with one source, {four_mb:.0f} with four, {all_mb:.0f} with seven")
    for counts in (found, beside):
        print(dict(counts))
        for name, fps in RATES.items():
            assert counts[name] == pytest.approx(SECONDS * fps, rel=0.15), (name, dict(counts))
    assert beside["changes"] == pytest.approx(SECONDS * 2, rel=0.2)
    assert beside["garbage"] == beside["hangs"] == 0
    assert (four_mb - alone_mb) / 3 < MOST_MB_A_SOURCE
    assert (all_mb - four_mb) / 3 < MOST_MB_A_SOURCE
