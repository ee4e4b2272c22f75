"""Puts answers together: outputs, errors and echoes, with the load of the stream's model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from splitpoint.codec import Array, SplitpointError
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, encode_tensors

from ..compute.served_model import ServedModel
from ..engine.engines import Engines
from ..engine.request import Request
from ..figures import Figures
from ..unexpected import Stage
from .arrival import Arrival

if TYPE_CHECKING:
    from .tracing import FrameTraces

_REASON_CHARACTERS = 500


def load_of(engine: Engines, model: ServedModel, share: str, figures: Figures) -> pb.Load | None:
    """How busy the worker is for frames of `model` that `share` pays for.

    None where that cannot be said: an answer goes without.

    A load without waits changes nothing at who gets it.
    """
    try:
        return engine.load(model, share)
    except Exception as error:  # noqa: BLE001 - it is noted, and frames matter more
        figures.unexpected.caught(Stage.LOAD, error, model=model.bundle.manifest.name)
        return None


class Answers:
    """Gives every message that asks for one exactly one answer; `send` returns its bytes.

    `announced` are the times that the client was told when it came, and goes by; `share` is who
    pays for its frames.
    """

    def __init__(
        self,
        engine: Engines,
        figures: Figures,
        traces: FrameTraces | None,
        announced: CloudTimes,
        share: str,
        send: Callable[[pb.Reply | pb.ProbeReply], int],
    ) -> None:
        self._engine, self._figures, self._traces, self._send = engine, figures, traces, send
        self._announced, self._share = announced, share

    def give(
        self, arrival: Arrival, result: dict[str, Array] | FrameError, job: Request | None = None
    ) -> None:
        """Answers with outputs, or with the error. Whatever fails here becomes INTERNAL."""
        if arrival.is_answered:
            return
        arrival.is_answered = True
        if job is not None and not isinstance(result, FrameError):
            try:
                self._ok(arrival, job, result)
                return
            except SplitpointError as misfit:
                result = FrameError(
                    pb.INTERNAL, f"the outputs do not fit the bundle ({str(misfit)[:100]})"
                )
            except Exception as error:  # noqa: BLE001 - noted, and answered
                result = self._caught(Stage.ANSWER, arrival, error)
        assert isinstance(result, FrameError)
        self._error(arrival, job, result)

    def echo(self, model: ServedModel, probe_id: int) -> None:
        """Answers a probe."""
        self._send(pb.ProbeReply(id=probe_id, load=self._load(model)))

    def _ok(self, arrival: Arrival, job: Request, outputs: dict[str, Array]) -> None:
        waited_s = arrival.decode_began_s - arrival.read_s + job.started_s - job.queued_s
        times = pb.Times(
            queue_us=int(1e6 * max(waited_s, 0.0)),
            decode_us=int(1e6 * (arrival.decoded_s - arrival.decode_began_s)),
            compute_us=int(1e6 * (job.finished_s - job.started_s)),
            total_us=_since_us(arrival),
            batch=job.batch_computed,
        )
        form = job.model.form
        reply = pb.Reply(
            id=arrival.frame_id,
            message_index=arrival.index,
            status=pb.OK,
            outputs=encode_tensors(outputs, form.specs, form.codec),
            times=times,
            load=self._load(arrival.model),
        )
        arrival.at.bytes_sent += self._send(reply)
        arrival.at.answered(times.queue_us, times.decode_us, times.compute_us, times.batch)
        self._trace(arrival, job, pb.OK)

    def _error(self, arrival: Arrival, job: Request | None, error: FrameError) -> None:
        try:
            nbytes = self._send(
                pb.Reply(
                    id=arrival.frame_id,
                    message_index=arrival.index,
                    status=error.status,
                    reason=str(error)[:_REASON_CHARACTERS],
                    times=pb.Times(total_us=_since_us(arrival)),
                    load=self._load(arrival.model),
                )
            )
        except Exception as another:  # noqa: BLE001 - noted, and answered
            error = self._caught(Stage.ANSWER, arrival, another)
            nbytes = self._send(
                pb.Reply(
                    id=arrival.frame_id, message_index=arrival.index, status=error.status,
                    reason=str(error),
                )
            )  # fmt: skip
        arrival.at.statuses[error.status] += 1
        arrival.at.bytes_sent += nbytes
        if arrival.frame_id:
            self._trace(arrival, job, error.status, str(error))

    def _load(self, model: ServedModel) -> pb.Load | None:
        load = load_of(self._engine, model, self._share, self._figures)
        if load is None or model.times.segment_ms == self._announced.segment_ms:
            return load
        # The model was measured again, and its slowdown is over the new times.
        told = pb.Load()
        told.CopyFrom(load)
        told.slowdown *= sum(model.times.segment_ms) / sum(self._announced.segment_ms)
        return told

    def _trace(
        self, arrival: Arrival, job: Request | None, status: pb.Status, reason: str = ""
    ) -> None:
        if self._traces is None:
            return
        try:
            self._traces.answered(arrival, job, status, reason)
        except Exception as error:  # noqa: BLE001 - noted; the frame has its answer
            self._caught(Stage.TRACE, arrival, error)

    def _caught(self, stage: Stage, arrival: Arrival, error: Exception) -> FrameError:
        name = arrival.model.bundle.manifest.name
        return self._figures.unexpected.caught(stage, error, model=name, frame=arrival.frame_id)


def _since_us(arrival: Arrival) -> int:
    return int(1e6 * (time.perf_counter() - arrival.arrived_s))
