"""What the unanswered frames of one stream hold."""

from __future__ import annotations

from ..engine.request import Request
from .computing import Computing


class PendingFrames:
    """By their ids: the bytes of each, and its request once it is decoded."""

    def __init__(self, engine: Computing) -> None:
        self._engine = engine
        self._requests: dict[int, Request | None] = {}
        self._nbytes: dict[int, int] = {}

    def add(self, frame_id: int, nbytes: int) -> None:
        """It was taken, and holds so much memory."""
        self._requests[frame_id], self._nbytes[frame_id] = None, nbytes

    def queued(self, frame_id: int, request: Request) -> None:
        """It was decoded, and given to an engine."""
        if frame_id in self._requests:
            self._requests[frame_id] = request

    def cancel(self, frame_id: int) -> None:
        """Its sender does not wait for it any more."""
        if (request := self._requests.get(frame_id)) is not None:
            self._engine.cancel(request)

    def drop(self, frame_id: int) -> int:
        """It has its answer; the bytes that it held."""
        self._requests.pop(frame_id, None)
        return self._nbytes.pop(frame_id, 0)

    def drop_all(self) -> int:
        """Nobody waits for any of them; the bytes that they held."""
        for frame_id in self._requests:
            self.cancel(frame_id)
        return sum(self.drop(frame_id) for frame_id in list(self._requests))
