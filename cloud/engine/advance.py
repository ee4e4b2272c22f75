"""One step of a batch: what one request breaks, or has no memory for, it alone pays for.

A step is done when the device is done with it: what a GPU was only given is nothing that others can
join, or that a clock or a watchdog could see.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import cast

from splitpoint.codec import Array
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from ..brief_log import FRAMES
from ..compute.loaded_model import LoadedModel
from ..compute.served_model import ServedModel
from ..gpu.device_errors import is_device_lost, is_out_of_memory
from ..schedule.batch import Step
from .isolate import run_isolated
from .request import Request
from .running_batch import RunningBatch, reunited

log = logging.getLogger(FRAMES)

RequestAnswer = tuple[Request, "dict[str, Array] | FrameError"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """What became of a batch in one step. There was memory for `room` samples at a time.

    `lost` is what says that the device computes nothing any more, which is no frame's fault.
    """

    progress: RunningBatch | None  # who goes on, if anybody
    answers: list[RequestAnswer]  # of those who do not
    failed: list[Request]  # those of them who have no outputs
    room: int
    lost: Exception | None = None

    @property
    def is_lost(self) -> bool:
        """Whether everything failed."""
        return self.progress is None and len(self.failed) == len(self.answers)


def advance(step: Step[Request], began_s: float) -> Advanced:
    """Runs a step. Where it fails it is run in halves, and without memory in smaller pieces."""
    model = cast(LoadedModel, step.batch.jobs[0].model)
    runner, segment, room = model.runner, step.segment, step.room
    running: RunningBatch = step.batch.progress or RunningBatch()
    running.joining = step.joining
    for request in running.joining:
        request.started_s = began_s
    errors: list[Exception] = []

    def run(part: RunningBatch) -> RunningBatch:
        nonlocal room
        while True:
            try:
                after = part.run(runner, segment, room)
                runner.wait()
                return after
            except Exception as error:
                size = min(part.samples, room)
                errors.append(error)
                if size < 2 or is_device_lost(error) or not is_out_of_memory(error):
                    raise
                room = size // 2

    def halves(part: RunningBatch) -> tuple[RunningBatch, RunningBatch] | None:
        return None if _lost(errors) else part.halves(runner, segment)

    parts, failures = run_isolated(run, halves, running)
    try:
        after = reunited(runner, segment + 1, parts)
    except Exception as error:  # noqa: BLE001 - they fit alone, but not together
        errors.append(error)
        failures += [(part, error) for part in parts]
        after = RunningBatch()
    if not _lost(errors):
        _blame(failures, len(running.requests))
    answers: list[RequestAnswer] = [
        (request, _why_failed(model, error))
        for part, error in failures
        for request in part.requests
    ]
    failed = [request for request, _ in answers]
    if step.is_last and after.aboard:
        found = _outputs(after, errors)
        answers += found
        failed += [request for request, answer in found if isinstance(answer, FrameError)]
        after = RunningBatch()
    progress = after if after.aboard else None
    return Advanced(
        progress=progress, answers=answers, failed=failed, room=room, lost=_lost(errors)
    )


def _lost(errors: list[Exception]) -> Exception | None:
    return next((error for error in errors if is_device_lost(error)), None)


def _blame(failures: list[tuple[RunningBatch, Exception]], requests: int) -> None:
    """Notes who broke a batch of so many requests: not where all of several failed."""
    failed = sum(len(part.requests) for part, _ in failures)
    if failed == requests > 1:
        return
    for part, error in failures:
        if not is_out_of_memory(error):
            for request in part.requests:
                request.broke()


def _outputs(batch: RunningBatch, errors: list[Exception]) -> list[RequestAnswer]:
    """The batch is at the end: to each its own, if they are good. `errors` gets what fails."""
    requests, model = batch.aboard, cast(LoadedModel, batch.aboard[0].model)
    answers: list[RequestAnswer]
    try:
        outputs = model.runner.answers(batch.state, [request.samples for request in requests])
    except Exception as error:  # noqa: BLE001 - a device can fail here too
        errors.append(error)
        answers = [(request, _why_failed(model, error)) for request in requests]
    else:
        found = zip(requests, outputs, strict=True)
        answers = [(request, _made(model, own)) for request, own in found]
    now_s = time.perf_counter()
    for request in requests:
        request.finished_s, request.batch_computed = now_s, batch.samples
    return answers


def _made(model: ServedModel, outputs: dict[str, Array]) -> dict[str, Array] | FrameError:
    """What the model's head makes of one request's outputs, which it alone may choke on."""
    try:
        return model.form.made(outputs)
    except Exception as error:  # noqa: BLE001 - told to its client
        return _why_failed(model, error, "the head")


def _why_failed(model: ServedModel, error: Exception, what: str = "computing") -> FrameError:
    """What a client is told. What else the error says, as of files, is for the log."""
    name = model.bundle.manifest.name
    log.warning("%s: a frame failed: %r", name, error, extra={"model": name})
    return FrameError(pb.INTERNAL, f"{what} failed ({type(error).__name__})")
