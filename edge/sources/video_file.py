"""The frames of a video file, those that cannot be decoded included."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from splitpoint.codec import Array

from .opencv import OpenCvCapture, open_file

log = logging.getLogger("splitpoint.edge")

# A container may only estimate how many frames it has.
ESTIMATE_ERROR = 0.02


class VideoFile:
    """Every frame of a video in order, as RGB uint8 `[height, width, 3]`, or None for a broken one.

    OpenCV says the same of a frame that cannot be decoded and of the end. So a second capture
    counts the packets without decoding them: as long as there are packets, a failure is a frame.
    Packets that bear nothing to show do not count: their time is that of a frame that was shown.
    Raises `SourceError` for a file that is no video. Not for use by several threads at once.
    """

    def __init__(self, path: Path) -> None:
        import cv2

        self._path, self._frames = path, open_file(path)
        self._reader = OpenCvCapture(self._frames)
        self._packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        self._announced = self._frames.get(cv2.CAP_PROP_FRAME_COUNT)

    def close(self) -> None:
        """Closes the file."""
        self._frames.release()
        self._packets.release()

    def __iter__(self) -> Iterator[Array | None]:
        """The frames; a broken stretch is told once it is over."""
        import cv2

        given = broken = 0
        ahead: list[float] = []  # times of packets that come after the last good frame
        while True:
            more = self._packets.grab()
            if more:
                ahead.append(self._packets.get(cv2.CAP_PROP_PTS))
            frame = self._reader.read()
            if frame is not None:
                yield from [None] * broken
                yield frame
                given, broken = given + broken + 1, 0
                shown = self._frames.get(cv2.CAP_PROP_PTS)
                ahead = [time for time in ahead if time > shown]
            elif more:
                broken += 1
            else:
                break
        yield from [None] * len(ahead)
        given += len(ahead)
        if given < (1 - ESTIMATE_ERROR) * self._announced - 1:
            log.warning("%s ends after %d of about %.0f frames", self._path, given, self._announced)
