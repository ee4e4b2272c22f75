"""Videos, cameras and network streams through OpenCV, which the extra `video` brings.

OpenCV is imported where something is opened: an edge that reads image files does without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from splitpoint.codec import Array
from splitpoint.proto.redact import redacted

from ..errors import SourceError

if TYPE_CHECKING:
    import cv2

TIMEOUT_S = 5.0  # for opening a stream, and for its next frame


class Capture(Protocol):
    """An open camera or stream."""

    def read(self) -> Array | None:
        """The next frame, RGB uint8 `[height, width, 3]`; None when none could be had."""

    def close(self) -> None:
        """Gives the device or the connection back."""


class OpenCvCapture:
    """A capture of OpenCV; its frames become RGB."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def read(self) -> Array | None:
        """The next frame; None when it cannot be decoded, or there is none."""
        import cv2

        there, bgr = self._capture.read()
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) if there else None

    def close(self) -> None:
        """Releases it."""
        self._capture.release()


def quiet_opencv() -> None:
    """Keeps OpenCV and FFmpeg from writing to stderr: what matters of that becomes an outcome.

    Raises `ModuleNotFoundError` where OpenCV is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when a video is first opened
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_camera(device: str) -> Capture:
    """A camera by its index or device file; `SourceError` where it cannot be opened."""
    import cv2

    capture = cv2.VideoCapture(int(device)) if device.isdecimal() else cv2.VideoCapture(device)
    if not capture.isOpened():
        raise SourceError(
            f"camera {device} cannot be opened", "is it there, free, and may you use it?"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the driver can: old frames are worth nothing
    if not capture.grab():
        capture.release()
        raise SourceError(
            f"camera {device} opens, but gives no picture",
            "a Raspberry Pi's camera module is driven by libcamera: --source picamera; for others, "
            "see whether another program uses it",
        )
    return OpenCvCapture(capture)


def open_stream(url: str, timeout_s: float = TIMEOUT_S) -> Capture:
    """A stream of the network; `SourceError` where it cannot be opened in time."""
    import cv2

    timeout_ms = round(1e3 * timeout_s)
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    failed = SourceError(
        f"{redacted(url)} cannot be opened",
        "does it answer, is it a video, and do they let you in?",
    )
    try:
        capture = cv2.VideoCapture(
            url, cv2.CAP_FFMPEG, [value for limit in limits for value in (limit, timeout_ms)]
        )
    except cv2.error:
        raise failed from None  # what it says may hold the address with its password
    if not capture.isOpened():
        raise failed
    return OpenCvCapture(capture)


def open_file(path: Path) -> cv2.VideoCapture:
    """A video file; `SourceError` for one that is none."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(f"{path} is no video that can be decoded", "give another file")
    return capture
