"""What computes the frames, in this process or in another: all that a front has to know of it."""

from __future__ import annotations

from typing import Protocol

from splitpoint.proto import splitpoint_pb2 as pb

from ..compute.served_model import ServedModel
from ..engine.request import Request
from ..schedule.job import Job


class Computing(Protocol):
    """Takes requests, answers each of them once, and tells how long others would wait."""

    def submit(self, request: Request) -> None:
        """Takes a request; `FrameError` (OVERLOADED) at once when it could not be kept."""
        ...

    def cancel(self, request: Request) -> None:
        """Nobody waits for that request any more; it is answered all the same."""
        ...

    def check(self, model: ServedModel, job: Job) -> None:
        """`FrameError` (OVERLOADED) for what `submit` would not take: decoding is in vain."""
        ...

    def alone_s(self, model: ServedModel, boundary: int, samples: int) -> float:
        """What a frame would take now, without any other."""
        ...

    def load(self, model: ServedModel | None = None, client: str | None = None) -> pb.Load:
        """How busy it is, and how long a frame of `model` by `client` would wait."""
        ...
