"""What the device has in hand: frames that it computes or encodes, and bytes that are under way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .uplink import Ahead

PROBE = -1  # in place of an arm


@dataclass(slots=True)
class FrameInHand:
    """`computed_s` is when it is, or is expected to be, computed; `nbytes` is 0 for none to send.

    It has so many `samples`. One that has `ended` may have bytes under way still.
    """

    arm: int
    deadline_s: float
    computed_s: float
    nbytes: float
    samples: int = 1
    sent_s: float | None = None
    ended: bool = False
    finishing: bool = False


class InHand:
    """Frames by a number of the caller's. Times are of any clock that never goes back."""

    def __init__(self) -> None:
        self._frames: dict[int, FrameInHand] = {}
        self._sent: dict[int, FrameInHand] = {}  # not answered, in the order of sending
        self._device_s: dict[int, float] = {}  # what the device has to do, in that order
        self._since_s = 0.0  # when it began with the first of them
        self._left_s = -math.inf  # when the latest answered frame had left

    @property
    def link_is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._sent

    @property
    def device_is_idle(self) -> bool:
        """Whether it has nothing to compute."""
        return not self._device_s

    def get(self, key: int) -> FrameInHand | None:
        """The frame, while anything of it is in hand."""
        return self._frames.get(key)

    @property
    def waiting(self) -> list[FrameInHand]:
        """Those with something to send that is not sent, in the order in which they are computed.

        `sorted` is stable: of frames that need no computing the first came first.
        """
        frames = self._frames.values()
        found = [f for f in frames if f.sent_s is None and not f.ended and f.nbytes > 0]
        return sorted(found, key=lambda frame: frame.computed_s)

    def begin(self, now_s: float, key: int, frame: FrameInHand, device_s: float) -> None:
        """The device takes it, for `device_s` of computing."""
        self._frames[key] = frame
        if device_s > 0:
            self.compute(now_s, key, device_s)
            frame.computed_s = self.device_free_s(now_s)

    def compute(self, now_s: float, key: int, device_s: float) -> None:
        """The device is to compute for a frame, behind all that it has to do."""
        if not self._device_s:
            self._since_s = now_s
        self._device_s[key] = device_s

    def computed(self, now_s: float, key: int) -> None:
        """That is done, or was not begun."""
        if self._device_s.pop(key, None) is not None:
            self._since_s = now_s
        frame = self._frames.get(key)
        if frame is not None:
            frame.computed_s = now_s

    def device_free_s(self, now_s: float) -> float:
        """When the device has done all that it has to do."""
        if not self._device_s:
            return now_s
        times = iter(self._device_s.values())
        return max(self._since_s + next(times), now_s) + sum(times)

    def send(self, now_s: float, key: int, nbytes: float) -> None:
        """Its bytes are given to the link."""
        frame = self._frames.get(key)
        if frame is not None:
            frame.sent_s, frame.nbytes = now_s, nbytes
            self._sent.pop(key, None)  # sent to another worker before
            self._sent[key] = frame

    def send_probe(self, now_s: float, key: int, nbytes: float) -> None:
        """A message that the worker echoes."""
        frame = FrameInHand(PROBE, now_s, now_s, nbytes, sent_s=now_s, ended=True)
        self._frames[key] = self._sent[key] = frame

    def answered(self, key: int, left_s: float, round_trip_s: float) -> tuple[float, float] | None:
        """The frame had left by `left_s`. Its bytes, and in which time they have left.

        That is 0 where it was no later than an empty message is. None where nobody can tell: it was
        overtaken by a later one, or the worker claims to have had it before it was sent.
        """
        frame = self._sent.get(key)
        if frame is None or frame.sent_s is None:
            return None
        # Bytes leave in order: what was sent before it and is not waited for is not under way.
        for other in [k for k, f in self._sent.items() if f.ended and f.sent_s <= frame.sent_s]:  # type: ignore[operator]
            self.forget(other)
        self._sent.pop(key, None)
        overtaken = left_s <= self._left_s
        took_s = left_s - max(frame.sent_s, self._left_s)
        self._left_s = max(left_s, self._left_s)
        if overtaken or left_s + round_trip_s <= frame.sent_s:
            return None
        return frame.nbytes, max(took_s, 0.0)

    def end(self, key: int) -> None:
        """It has its outcome; what it has sent may be under way still."""
        frame = self._frames.get(key)
        if frame is not None:
            frame.ended = True
            if key not in self._sent:
                del self._frames[key]

    def forget(self, key: int) -> None:
        """Nothing of it is under way any more."""
        self._sent.pop(key, None)
        frame = self._frames.get(key)
        if frame is not None and frame.ended:
            del self._frames[key]

    def ahead(self, now_s: float, after_s: float) -> Ahead:
        """What is under way before a new frame; from there to an answer it takes `after_s`."""
        if not self._sent:
            return Ahead(since_s=now_s, seen_s=now_s)
        first = next(iter(self._sent.values()))
        return Ahead(
            nbytes=sum(frame.nbytes for frame in self._sent.values()),
            first_nbytes=first.nbytes,
            since_s=max(self._left_s, first.sent_s or 0.0),
            seen_s=now_s - after_s,
        )

    @property
    def first(self) -> FrameInHand | None:
        """The oldest frame under way, unless it is a probe."""
        first = next(iter(self._sent.values()), None)
        return None if first is None or first.arm == PROBE else first

    def behind(self, key: int) -> float:
        """Bytes that were sent after the frame's."""
        nbytes = 0.0
        for other in reversed(self._sent):
            if other == key:
                break
            nbytes += self._sent[other].nbytes
        return nbytes
