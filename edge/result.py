"""What becomes of a frame: exactly one outcome, with the time of every stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from splitpoint.codec import Array, SplitpointError


class Outcome(str, Enum):
    """How a frame ended. There is no other way."""

    ANSWERED = "answered"  # by the cloud
    LOCAL = "local"  # finished on the device
    EXPIRED = "expired"  # its budget ran out
    FAILED = "failed"  # with a typed error
    SKIPPED = "skipped"  # nothing in it had changed since the last one that was looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Milliseconds of each stage; they add up to the time from edge compute to answer.

    What the two ends measure with their own clocks is exact. The rest of the round trip is the
    link's: `downlink` is taken as half of the shortest round trip of an empty probe (answers are
    small), `uplink` is what remains.
    """

    edge: float = 0.0
    encode: float = 0.0
    uplink: float = 0.0
    queue: float = 0.0
    cloud: float = 0.0
    downlink: float = 0.0

    def to_json(self) -> dict[str, float]:
        """Rounded to microseconds."""
        return {name: round(getattr(self, name), 3) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One frame's end. `outputs` bear the model's own names and are empty unless it has an answer.

    `labels` are those of the model's classes: an agent may go on with a newer model. `boundary` and
    `codec` are what was really used; `bytes_up` counts all that was sent for it, where the device
    then finished it, too. `metadata` is what the caller gave with the frame.
    """

    id: int
    outcome: Outcome
    boundary: int
    codec: str
    outputs: Mapping[str, Array] = field(default_factory=dict)
    labels: Sequence[str] = ()
    stages_ms: Stages = Stages()
    total_ms: float = 0.0
    bytes_up: int = 0
    cloud_compute_ms: float = 0.0  # of `stages_ms.cloud`, what the model itself took
    cloud_batch: int = 0
    why: str = ""
    error: SplitpointError | None = None
    metadata: Any = None
    ended_s: float = field(default_factory=time.time, compare=False)  # since 1970
