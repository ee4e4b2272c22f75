"""One frame on its way through the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .batch_times import BatchTimes


class Timed(Protocol):
    """What the scheduler has to know of a model."""

    @property
    def batch_times(self) -> BatchTimes:
        """What its segments take."""
        ...


@dataclass(eq=False, kw_only=True)
class Job:
    """`samples` of `model` that wait at `boundary`. Times are seconds of one monotonic clock.

    `deadline_s` is when the answer is of no use any more; `client` is who pays for it. Frames of
    its that are still being decoded will take `decoding_s` of the device. `enter_s` is what the
    device takes for this one before its first segment, to decode it.
    """

    model: Timed
    boundary: int
    samples: int
    deadline_s: float
    client: str
    nbytes: int = 0
    decoding_s: float = 0.0
    enter_s: float = 0.0
    cancelled: bool = False
    cost_s: float = 0.0  # of the device's time, as planned when it was taken
    queued_s: float = 0.0
