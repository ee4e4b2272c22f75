"""A Raspberry Pi's camera module, played by a module that stands in for picamera2."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.find import find_source
from splitpoint.edge.sources.live import LiveSource
from splitpoint.edge.sources.picamera import open_picamera


class Picamera2:
    """The part of its interface that is used, as its manual describes it."""

    def __init__(self, number: int) -> None:
        if number > 1:
            raise IndexError("list index out of range")
        self.steps: list[str] = []

    def create_video_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
        return main

    def configure(self, main: dict[str, Any]) -> None:
        assert main["format"] == "BGR888"
        self._size = main["size"]

    def start(self) -> None:
        self.steps.append("start")

    def capture_array(self, name: str) -> np.ndarray:
        assert name == "main"
        return np.zeros((*self._size[::-1], 3), np.uint8)

    def stop(self) -> None:
        self.steps.append("stop")

    def close(self) -> None:
        self.steps.append("close")


def test_frames_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    camera = open_picamera(1)
    frame = camera.read()
    assert frame is not None
    assert frame.shape == (720, 1280, 3)
    camera.close()
    with pytest.raises(SourceError, match="camera module 2 cannot be opened"):
        open_picamera(2)


async def test_where_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    source = find_source("picamera")
    assert isinstance(source, LiveSource)
    with pytest.raises(SourceError, match="picamera2 is not installed: apt install"):
        await source.open()
    await source.close()
