"""Camera modules of a Raspberry Pi, through picamera2, which its operating system brings."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from splitpoint.codec import Array

from ..errors import SourceError

SIZE_PX = (1280, 720)


class PiCamera:
    """A capture of the module with that number."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera

    def read(self) -> Array | None:
        """The next frame."""
        return np.ascontiguousarray(self._camera.capture_array("main"))

    def close(self) -> None:
        """Gives the camera back."""
        self._camera.stop()
        self._camera.close()


def open_picamera(number: int) -> PiCamera:
    """The camera module with that number; `SourceError` where there is none."""
    try:
        picamera2 = importlib.import_module("picamera2")
    except ImportError as error:
        raise SourceError(
            "picamera2 is not installed",
            "apt install python3-picamera2, in an environment made with --system-site-packages",
        ) from error
    try:
        camera = picamera2.Picamera2(number)
        # Formats are named by the bytes' order in a register: BGR888 is R, G, B in memory.
        camera.configure(
            camera.create_video_configuration(main={"format": "BGR888", "size": SIZE_PX})
        )
        camera.start()
    except (RuntimeError, IndexError) as error:
        raise SourceError(
            f"camera module {number} cannot be opened ({str(error)[:100]})",
            "does `rpicam-hello --list-cameras` show it, and does no other program use it?",
        ) from error
    return PiCamera(camera)
