"""OpenTelemetry spans of frames: one a frame and one for each of its stages.

They are made when the frame is answered, from the times that were taken anyhow; a worker without
a tracer does nothing for it. A frame's span continues the trace that its sender names in the field
`traceparent` (W3C Trace Context). That is a field of the frame and no metadata of the stream: a
stream lives as long as its client and carries the frames of many traces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from splitpoint.proto import splitpoint_pb2 as pb

from ..engine.request import Request
from .arrival import Arrival

FRAME = "splitpoint.frame"
_PARENT = TraceContextTextMapPropagator()


class FrameTraces:
    """Makes spans with the tracer of `provider`. `close` is called when the worker has stopped."""

    def __init__(self, provider: TracerProvider, close: Callable[[], None] = lambda: None) -> None:
        self._tracer = provider.get_tracer("splitpoint.cloud")
        self.close = close

    def answered(
        self, arrival: Arrival, job: Request | None, status: pb.Status, reason: str = ""
    ) -> None:
        """The frame has its answer now. `job` is None for one that was never queued."""
        now_s = time.perf_counter()
        epoch_ns = time.time_ns() - int(1e9 * now_s)

        def ns(seconds: float) -> int:
            return epoch_ns + int(1e9 * seconds)

        parent = Context()  # nothing of the task that happens to answer
        if arrival.traceparent:
            parent = _PARENT.extract({"traceparent": arrival.traceparent}, parent)
        span = self._tracer.start_span(
            FRAME, parent, SpanKind.SERVER, start_time=ns(arrival.arrived_s)
        )
        if span.is_recording():
            span.set_attribute("splitpoint.model", arrival.model.bundle.manifest.name)
            span.set_attribute("splitpoint.frame", arrival.frame_id)
            span.set_attribute("splitpoint.status", pb.Status.Name(status).lower())
            if job is not None:
                span.set_attribute("splitpoint.boundary", job.boundary)
                span.set_attribute("splitpoint.batch", job.batch_computed)
            if status != pb.OK:
                span.set_status(Status(StatusCode.ERROR, reason[:200]))
            inside = trace.set_span_in_context(span, parent)
            for name, began_s, ended_s in _stages(arrival, job, now_s):
                stage = self._tracer.start_span(name, inside, start_time=ns(began_s))
                stage.end(ns(ended_s))
        span.end(ns(now_s))


def _stages(
    arrival: Arrival, job: Request | None, now_s: float
) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end of the stages that a frame came through, one after the other."""
    times = [("receive", arrival.arrived_s), ("decode", arrival.decode_began_s)]
    if job is not None:
        times += [("queue", job.queued_s), ("compute", job.started_s), ("reply", job.finished_s)]
    reached = [(name, began_s) for name, began_s in times if began_s]
    ends = [began_s for _, began_s in reached[1:]] + [now_s]
    for (name, began_s), ended_s in zip(reached, ends, strict=True):
        yield name, began_s, ended_s


def otlp_traces(endpoint: str) -> FrameTraces:
    """Spans go to an OTLP collector at `endpoint` (HOST:PORT, gRPC without TLS), in batches.

    Sampling and resource attributes are as OpenTelemetry's environment variables say
    (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES).
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = SdkProvider(resource=Resource.create({"service.name": "splitpoint-worker"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
    return FrameTraces(provider, provider.shutdown)
