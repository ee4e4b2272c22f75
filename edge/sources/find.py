"""Which source a user means."""

from __future__ import annotations

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
from .source import Source
from .stdin import StdinSource
from .watch import WatchSource

STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")


def find_source(text: str, *, watch: bool = False, repeat: int = 1) -> Source:
    """The source that `text` names, still to be opened.

    An image, `.npy` or `.npz` file, a video, a glob or a folder (its pictures or arrays, once);
    `watch:FOLDER`, or a folder with `watch`; a camera's index (where no file is called so) or
    device file; the address of a stream (RTSP, or MJPEG over HTTP); `-` for paths of files on
    standard input, one a line.
    Raises `SourceError` or `PictureError` for anything else, `ModuleNotFoundError` where OpenCV is
    needed and missing.
    """
    source = _without_repeat(text, watch)
    if source is None:
        folder = Path(text)
        if folder.is_dir():
            return FolderSource(folder, repeat)
        return FilesSource(_files(text), repeat)
    if repeat != 1:
        raise SourceError(f"the source {sayable(text)} cannot be repeated", "leave out --repeat")
    return source


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


def _without_repeat(text: str, watch: bool) -> Source | None:
    if watch or text.startswith("watch:"):
        return _watched(text.removeprefix("watch:"))
    if text == "-":
        return StdinSource()
    if text.lower().startswith(STREAMS):
        quiet_opencv()
        return LiveSource(redacted(text), partial(open_stream, text))
    # What exists under that name is meant rather than a camera: a folder may be called 2026.
    if Path(text).exists() and not text.startswith("/dev/"):
        return None
    if (text.isascii() and text.isdecimal()) or text.startswith("/dev/video"):
        quiet_opencv()
        return LiveSource(f"camera {text}", partial(open_camera, text))
    return None
