"""A frame that has been checked and decoded, on its way through an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from splitpoint.codec import Array, CodecSource
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.costs import CloudTimes
from splitpoint.proto.frames import Boundaries, FrameError

from .batch_times import BatchTimes
from .job import Job
from .runner import Runner
from .timing import Timing
from .unpack import Values


@dataclass(kw_only=True, eq=False)
class ServedModel:
    """A bundle that is loaded and timed.

    `measure_again`, where that is due, measures its times anew on the compute thread: None where
    they were disturbed. It calls what it is given between whatever it times; what that raises ends
    it.
    """

    bundle: Bundle
    runner: Runner
    times: CloudTimes
    batch_times: BatchTimes
    boundaries: Boundaries
    codecs: CodecSource
    manifest_bytes: int = 0
    measure_again: Callable[[Callable[[], None]], Timing | None] | None = None


Answer = Callable[["Request", "dict[str, Array] | FrameError"], None]


@dataclass(eq=False, kw_only=True)
class Request(Job):
    """`answer` is called once, on the event loop, with the outputs or the error.

    Times are of `time.perf_counter`. `broke` is called before it where computing failed for this
    request alone.
    """

    model: ServedModel
    values: Values
    answer: Answer
    broke: Callable[[], None]
    started_s: float = 0.0
    finished_s: float = 0.0
    batch_computed: int = 0
    is_answered: bool = False
