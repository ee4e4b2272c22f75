"""A camera that speaks RTSP: JPEG over RTP (RFC 2435), interleaved in the RTSP connection."""

from __future__ import annotations

import re
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLOCK_HZ, FPS = 90_000, 25


def rtp_jpeg(jpeg: bytes, number: int, width: int, height: int) -> bytes:
    """One RTP packet with a small 4:2:0 baseline JPEG of standard Huffman tables."""
    tables = b"".join(
        match[1] for match in re.finditer(rb"\xff\xdb\x00\x43[\x00\x01](.{64})", jpeg, re.DOTALL)
    )
    assert len(tables) == 128
    scan_at = jpeg.index(b"\xff\xda")
    scan = jpeg[scan_at + 2 + int.from_bytes(jpeg[scan_at + 2 : scan_at + 4], "big") : -2]
    head = struct.pack("!BBHII", 0x80, 0x80 | 26, number & 0xFFFF, number * CLOCK_HZ // FPS, 1)
    jpeg_head = struct.pack("!IBBBB", 0, 1, 255, width // 8, height // 8)
    return head + jpeg_head + struct.pack("!BBH", 0, 0, len(tables)) + tables + scan


@contextmanager
def rtsp_camera(jpegs: list[bytes], width: int, height: int) -> Iterator[str]:
    """The address of a camera that shows `jpegs` once to each visitor, then hangs up."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while request := self.request_lines():
                method, _, number = request
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
                body = ""
                if method == "OPTIONS":
                    answer += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\n"
                        f"t=0 0\r\nm=video 0 RTP/AVP 26\r\na=framerate:{FPS}\r\na=control:0\r\n"
                    )
                    answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                self.wfile.write(f"{answer}\r\n{body}".encode())
                if method == "PLAY":
                    self.play()
                    return

        def request_lines(self) -> tuple[str, str, str] | None:
            lines = []
            while line := self.rfile.readline().strip().decode():
                lines.append(line)
            if not lines:
                return None
            (number,) = (line.split(":")[1] for line in lines if line.startswith("CSeq"))
            method, address, _ = lines[0].split()
            return method, address, number.strip()

        def play(self) -> None:
            for number, jpeg in enumerate(jpegs):
                packet = rtp_jpeg(jpeg, number, width, height)
                try:
                    self.wfile.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                except OSError:  # the visitor left
                    return
                time.sleep(1 / FPS)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address = True, True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"rtsp://user:secret@127.0.0.1:{server.server_address[1]}/camera"
        finally:
            server.shutdown()
            thread.join()
