"""The frames of a stream that are under way, and the credits that they hold."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum, auto
from operator import attrgetter

_DUE_S = attrgetter("due_s")


class Stage(IntEnum):
    """How far a frame has come. From `GRANTED` on it holds a credit."""

    WAITING = auto()  # for a credit
    GRANTED = auto()  # to be built
    UNSENT = auto()
    SENT = auto()
    UNWANTED = auto()  # sent, and nobody waits for it: the worker is yet to be rid of it


@dataclass(slots=True, eq=False)
class FrameUnderWay:
    """One frame. It changes by itself at `due_s`, unless something happens before."""

    id: int
    deadline_s: float  # its budget's end
    due_s: float = math.inf
    stage: Stage = Stage.WAITING
    data: bytes = b""  # until it is sent
    nbytes: int = 0
    sent_s: float = 0.0  # when it was handed over to be sent
    index: int = 0  # its place among the stream's messages


class UnderWay:
    """A frame holds a credit from before it is built until the worker has answered it.

    One is built at a time: what was asked first is sent first, as codecs of streams need it. One
    that ends before it was sent holds neither memory nor bandwidth. One that nobody waits for any
    more holds its credit still: the worker has not said that it is rid of it.
    """

    def __init__(self, credits: int) -> None:
        self._free = credits
        self._frames: dict[int, FrameUnderWay] = {}
        self._by_index: dict[int, FrameUnderWay] = {}
        self._waiting: deque[FrameUnderWay] = deque()
        self._building: FrameUnderWay | None = None

    def __len__(self) -> int:
        """How many there are, whether anybody waits for them or not."""
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(frame.nbytes for frame in self._frames.values())

    @property
    def due_s(self) -> float:
        """When the first of them changes by itself."""
        return min(map(_DUE_S, self._frames.values()), default=math.inf)

    def due(self, now_s: float) -> list[FrameUnderWay]:
        """Those whose time has come."""
        return [frame for frame in self._frames.values() if frame.due_s <= now_s]

    def get(self, frame_id: int) -> FrameUnderWay | None:
        """The frame of that id, if it is under way."""
        return self._frames.get(frame_id)

    def at(self, message_index: int) -> FrameUnderWay | None:
        """The frame that was the stream's message of that index, if it is under way."""
        return self._by_index.get(message_index)

    def add(self, frame: FrameUnderWay) -> None:
        """It is granted a credit where one is free, and waits for one behind the others if not."""
        self._frames[frame.id] = frame
        self._waiting.append(frame)

    def grant(self) -> FrameUnderWay | None:
        """The next frame that gets a credit; None while it has to wait, or none waits."""
        if not (self._free and self._waiting) or self._building is not None:
            return None
        self._building = frame = self._waiting.popleft()
        frame.stage, frame.due_s = Stage.GRANTED, math.inf  # it is built at once
        self._free -= 1
        return frame

    def built(self, frame: FrameUnderWay, data: bytes) -> None:
        """It is to be sent, and the next may be built."""
        frame.stage, frame.data, frame.nbytes = Stage.UNSENT, data, len(data)
        self._building = None

    def write(self, frame: FrameUnderWay, message_index: int) -> bytes:
        """What to send as the stream's message of that index."""
        frame.stage, frame.index = Stage.SENT, message_index
        self._by_index[message_index] = frame
        data, frame.data = frame.data, b""
        return data

    def forget(self, frame: FrameUnderWay) -> None:
        """The worker holds it no longer, or never saw it; neither does its credit."""
        del self._frames[frame.id]
        self._by_index.pop(frame.index, None)
        if frame is self._building:
            self._building = None
        if frame.stage is Stage.WAITING:
            self._waiting.remove(frame)
        else:
            self._free += 1
        frame.data = b""

    def drop_all(self) -> list[FrameUnderWay]:
        """None of them will be answered; returns them."""
        frames = list(self._frames.values())
        for frame in frames:
            self.forget(frame)
        return frames
