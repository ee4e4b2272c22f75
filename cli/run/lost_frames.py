"""Frames without an answer: the first of a kind is named, those after it are counted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from splitpoint.edge import Result

AGAIN_S = 10.0  # between two lines of a kind
MOST_KINDS = 64  # that are remembered: each file that cannot be read is one
_FIGURES = re.compile(r"\d[\d.,]*(?= (?:ms|s|bytes)\b)")  # which differ in each frame


@dataclass(slots=True)
class _Kind:
    said_s: float
    words: str
    since: int = 0  # frames that nothing was said of


class LostFrames:
    """Says of each kind of loss that it begins, now and then how many frames it took, and the rest.

    A camera whose link fails loses ten frames a second, for one reason.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._kinds: dict[str, _Kind] = {}

    def add(self, result: Result) -> None:
        """A frame that ended with an error."""
        words = f"{result.outcome.value}: {result.error}"
        key, now_s = _FIGURES.sub("", words), self._clock()
        kind = self._kinds.get(key)
        if kind is not None and now_s - kind.said_s < AGAIN_S:
            kind.since += 1
            return
        before = f" ({kind.since} more before it)" if kind is not None and kind.since else ""
        self._say(f"{result.id} {result.metadata}: {words}{before}")
        self._kinds.pop(key, None)
        self._kinds[key] = _Kind(now_s, words)
        if len(self._kinds) > MOST_KINDS:
            self._say_rest(self._kinds.pop(next(iter(self._kinds))))

    def close(self) -> None:
        """Says how many there were that no line has counted."""
        for kind in self._kinds.values():
            self._say_rest(kind)
        self._kinds.clear()

    def _say_rest(self, kind: _Kind) -> None:
        if kind.since:
            frames = "frame" if kind.since == 1 else "frames"
            self._say(f"{kind.since} more {frames} {kind.words}")
