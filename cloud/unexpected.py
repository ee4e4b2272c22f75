"""Exceptions that nobody thought of: each costs one frame, or one task, and is logged."""

from __future__ import annotations

import logging
from enum import Enum

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

log = logging.getLogger("splitpoint.cloud")


class Stage(str, Enum):
    """Where in a stream it happened."""

    RECEIVE = "receive"
    DECODE = "decode"
    ANSWER = "answer"
    LOAD = "load"
    TRACE = "trace"


class Unexpected:
    """Counts by stage."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Stage, 0)

    def caught(self, stage: Stage, error: BaseException, **about: object) -> FrameError:
        """Notes the exception; what its sender is told of it, which names no more than its kind."""
        self.counts[stage] += 1
        log.error("%s failed", stage.value, exc_info=error, extra=about)
        return FrameError(pb.INTERNAL, f"{stage.value} failed ({type(error).__name__})")
