"""Which source a user means."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.errors import PictureError
from splitpoint.proto.redact import UNKNOWN, redacted

from ..errors import SourceError
from .files import FilesSource
from .folder import FolderSource
from .live import LiveSource
from .opencv import open_camera, open_stream, quiet_opencv
from .paced import Paced
from .picamera import open_picamera
from .snapshots import open_http
from .source import Source
from .stdin import StdinSource
from .watch import WatchSource

STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")

_MODULE = re.compile(r"picamera(?::(\d))?")


def find_source(
    text: str, *, watch: bool = False, repeat: int = 1, fps: float = math.inf
) -> Source:
    """The source that `text` names, still to be opened.

    An image, `.npy` or `.npz` file, a video, a glob or a folder (its pictures or arrays, once);
    `watch:FOLDER`, or a folder with `watch`; a camera's index (where no file is called so) or
    device file; `picamera` or `picamera:1`, a camera module of a Raspberry Pi; the address of a
    stream (RTSP, or MJPEG over HTTP) or of snapshots; `-` for paths of files on standard input, one
    a line. No more than `fps` frames a second are taken from it.
    Raises `SourceError` or `PictureError` for anything else, `ModuleNotFoundError` where OpenCV is
    needed and missing.
    """
    source = _endless(text, watch) or _live(text, fps)
    if source is None:
        folder = Path(text)
        source = (
            FolderSource(folder, repeat) if folder.is_dir() else FilesSource(_files(text), repeat)
        )
    elif repeat != 1:
        raise SourceError(f"the source {sayable(text)} cannot be repeated", "leave out --repeat")
    return source if source.live or fps == math.inf else Paced(source, fps)


def _files(text: str) -> list[Path]:
    try:
        return find_pictures(text)
    except PictureError:
        if sayable(text) == text:
            raise
        what = f"the source {sayable(text)} is no address of a stream, and matches no file"
        raise SourceError(what, f"begin an address with {', '.join(STREAMS)}") from None


def sayable(text: str) -> str:
    """What names the source in an error: a password may be in it even where its scheme is not."""
    if "://" in text:
        return redacted(text)
    return UNKNOWN if "@" in text or "=" in text else text


def _watched(folder: str) -> WatchSource:
    try:
        return WatchSource(Path(folder))
    except SourceError:
        if sayable(folder) == folder:
            raise
        raise SourceError(f"{sayable(folder)} is no folder to watch", "give a folder") from None


def _endless(text: str, watch: bool) -> Source | None:
    if watch or text.startswith("watch:"):
        return _watched(text.removeprefix("watch:"))
    return StdinSource() if text == "-" else None


def _live(text: str, fps: float) -> LiveSource | None:
    if text.lower().startswith(("http://", "https://")):
        # Whether it is a stream or a snapshot is known when it answers.
        return LiveSource(redacted(text), partial(open_http, text, fps), fps=fps)
    if text.lower().startswith(STREAMS):
        quiet_opencv()
        return LiveSource(redacted(text), partial(open_stream, text), fps=fps)
    # What exists under that name is meant rather than a camera: a folder may be called 2026.
    if Path(text).exists() and not text.startswith("/dev/"):
        return None
    module = _MODULE.fullmatch(text)
    if module is not None:
        return LiveSource(text, partial(open_picamera, int(module[1] or 0)), fps=fps)
    if (text.isascii() and text.isdecimal()) or text.startswith("/dev/video"):
        quiet_opencv()
        return LiveSource(f"camera {text}", partial(open_camera, text), fps=fps)
    return None
