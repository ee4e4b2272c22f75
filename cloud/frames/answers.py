"""Puts answers together: outputs, errors and echoes, with the load of the stream's model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from splitpoint.codec import Array, SplitpointError
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, encode_tensors

from ..compute.served_model import ServedModel
from ..engine.request import Request
from ..figures import Figures
from ..unexpected import Stage
from .arrival import Arrival
from .computing import Computing

if TYPE_CHECKING:
    from .tracing import FrameTraces

# Compressing so much takes less than a millisecond, as long as the event loop may be kept from
# everybody else. The class map of a segmenter has more, and is encoded in a thread.
LARGE_BYTES = 100_000
_REASON_CHARACTERS = 500


def load_of(engine: Computing, model: ServedModel, share: str, figures: Figures) -> pb.Load | None:
    """How busy the worker is for frames of `model` that `share` pays for.

    None where that cannot be said: an answer goes without.

    A load without waits changes nothing at who gets it.
    """
    try:
        return engine.load(model, share)
    except Exception as error:  # noqa: BLE001 - it is noted, and frames matter more
        figures.unexpected.caught(Stage.LOAD, error, model=model.bundle.manifest.name)
        return None


def encoded(model: ServedModel, outputs: Mapping[str, Array]) -> Sequence[pb.Tensor] | Exception:
    """The outputs as an answer carries them, or why they cannot be."""
    try:
        return encode_tensors(outputs, model.form.specs, model.form.codec)
    except Exception as error:  # noqa: BLE001 - its own frame answers for it
        return error


class Answers:
    """Gives every message that asks for one exactly one answer; `send` returns its bytes.

    `announced` are the times that the client was told when it came, and goes by; `share` is who
    pays for its frames.
    """

    def __init__(
        self,
        engine: Computing,
        figures: Figures,
        traces: FrameTraces | None,
        announced: CloudTimes,
        share: str,
        send: Callable[[pb.Reply | pb.ProbeReply], int],
    ) -> None:
        self._engine, self._figures, self._traces, self._send = engine, figures, traces, send
        self._announced, self._share = announced, share

    def give(
        self,
        arrival: Arrival,
        result: Sequence[pb.Tensor] | Exception,
        job: Request | None = None,
    ) -> None:
        """Answers with the `encoded` outputs, or with the error; what fails becomes INTERNAL."""
        if arrival.is_answered:
            return
        arrival.is_answered = True
        if job is not None and not isinstance(result, Exception):
            try:
                self._ok(arrival, job, result)
                return
            except Exception as error:  # noqa: BLE001 - noted, and answered
                result = error
        assert isinstance(result, Exception)
        self._error(arrival, job, self._told(arrival, result))

    def echo(self, model: ServedModel, probe_id: int) -> None:
        """Answers a probe."""
        self._send(pb.ProbeReply(id=probe_id, load=self._load(model)))

    def _ok(self, arrival: Arrival, job: Request, outputs: Sequence[pb.Tensor]) -> None:
        waited_s = arrival.decode_began_s - arrival.read_s + job.started_s - job.queued_s
        times = pb.Times(
            queue_us=int(1e6 * max(waited_s, 0.0)),
            decode_us=int(1e6 * (arrival.decoded_s - arrival.decode_began_s)),
            compute_us=int(1e6 * (job.finished_s - job.started_s)),
            total_us=_since_us(arrival),
            batch=job.batch_computed,
        )
        reply = pb.Reply(
            id=arrival.frame_id,
            message_index=arrival.index,
            status=pb.OK,
            outputs=outputs,
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

    def _told(self, arrival: Arrival, error: Exception) -> FrameError:
        """What a client is told of it."""
        if isinstance(error, FrameError):
            return error
        if isinstance(error, SplitpointError):
            why = f"the outputs do not fit the bundle ({str(error)[:100]})"
            return FrameError(pb.INTERNAL, why)
        return self._caught(Stage.ANSWER, arrival, error)

    def _caught(self, stage: Stage, arrival: Arrival, error: Exception) -> FrameError:
        name = arrival.model.bundle.manifest.name
        return self._figures.unexpected.caught(stage, error, model=name, frame=arrival.frame_id)


def _since_us(arrival: Arrival) -> int:
    return int(1e6 * (time.perf_counter() - arrival.arrived_s))
