"""A frame that has been checked and decoded, on its way through an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from splitpoint.codec import Array
from splitpoint.proto.frames import FrameError

from ..compute.served_model import ServedModel
from ..compute.values import Values
from ..schedule.job import Job


class NotTaken(FrameError):
    """An engine elsewhere would not take the request, and said so after it was submitted."""


GiveAnswer = Callable[["Request", "dict[str, Array] | FrameError"], None]


@dataclass(eq=False, kw_only=True)
class Request(Job):
    """`answer` is called once, on the event loop, with the outputs or the error.

    Times are of `time.perf_counter`. `broke` is called before it where computing failed for this
    request alone.
    """

    model: ServedModel
    values: Values
    answer: GiveAnswer
    broke: Callable[[], None]
    started_s: float = 0.0
    finished_s: float = 0.0
    batch_computed: int = 0
    is_answered: bool = False
