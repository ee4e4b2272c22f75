"""Videos that are made for a test: as files, damaged ones too, and as MJPEG over HTTP."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np


def grey_frames(count: int, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """Frame i is grey of 8 i."""
    for i in range(count):
        yield np.full((height, width, 3), 8 * i, np.uint8)


def write_video(path: Path, count: int, fourcc: str = "MJPG") -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 10, (64, 48))
    assert writer.isOpened()
    for frame in grey_frames(count):
        writer.write(frame)
    writer.release()
    return path


def damage(path: Path, frames: Sequence[int]) -> Path:
    """Overwrites these frames of an MJPEG video with zeros."""
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(rb"\xff\xd8\xff", data)]
    for frame in frames:
        end = data.find(b"\xff\xd9", starts[frame])
        data[starts[frame] : end] = bytes(end - starts[frame])
    path.write_bytes(data)
    return path


def jpeg(grey: int, height: int = 48, width: int = 64) -> bytes:
    import cv2

    done, data = cv2.imencode(".jpg", np.full((height, width, 3), grey, np.uint8))
    assert done
    return data.tobytes()


@contextmanager
def mjpeg_server(parts: Callable[[int], Iterator[bytes]]) -> Iterator[str]:
    """An address that sends `parts(n)` to its n-th visitor, then hangs up."""
    visits = iter(range(1_000_000))
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
            self.end_headers()
            try:
                for data in parts(next(visits)):
                    head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                    self.wfile.write(head.encode() + b"\r\n\r\n" + data + b"\r\n")
                    if over.is_set():
                        return
            except OSError:  # the visitor left
                return

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://user:secret@127.0.0.1:{server.server_port}/camera"
        finally:
            over.set()
            server.shutdown()
            thread.join()
