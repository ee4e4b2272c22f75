"""Spans of real frames, in the trace that the edge began."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_worker import local_worker
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from raw_client import RawClient
from splitpoint.cloud.frames.tracing import FRAME, FrameTraces
from splitpoint.cloud.worker import Worker
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb

STAGES = ["receive", "decode", "queue", "compute", "reply"]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Spans:
    """What a provider made, as far as it was sampled."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider, self._exporter = provider, InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def taken(self) -> list[ReadableSpan]:
        spans = sorted(
            self._exporter.get_finished_spans(),
            key=lambda span: (span.start_time, span.name != FRAME),
        )
        self._exporter.clear()
        return spans


@pytest.fixture
def spans() -> Spans:
    return Spans(TracerProvider())


@pytest.fixture
def worker_options(spans: Spans) -> dict[str, Any]:
    return {"traces": FrameTraces(spans.provider, spans.provider.shutdown)}


async def test_the_edges_trace_goes_on(
    worker: Worker, spans: Spans, pixels: np.ndarray, tmp_path: Path
) -> None:
    edge = Spans(TracerProvider())
    async with EdgeAgent(worker.address, split="1", codec="q8", cache=tmp_path) as agent:
        with edge.provider.get_tracer("edge").start_as_current_span("camera"):
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
            result = await agent.infer({"pixels": pixels}, **carrier)
    assert result.outcome is Outcome.ANSWERED
    (camera,) = edge.taken()
    found = spans.taken()
    frame = next(span for span in found if span.name == FRAME)
    assert frame.context.trace_id == camera.context.trace_id
    assert frame.parent.span_id == camera.context.span_id
    assert frame.kind is SpanKind.SERVER
    assert dict(frame.attributes) == {
        "splitpoint.model": "small",
        "splitpoint.frame": frame.attributes["splitpoint.frame"],
        "splitpoint.status": "ok",
        "splitpoint.boundary": 1,
        "splitpoint.batch": 3,
    }
    stages = [span for span in found if span is not frame]
    assert [span.name for span in stages] == STAGES
    assert {span.parent.span_id for span in stages} == {frame.context.span_id}
    # One after the other, and together the whole frame.
    assert stages[0].start_time == frame.start_time
    assert stages[-1].end_time == frame.end_time
    for before, after in itertools.pairwise(stages):
        assert before.end_time == after.start_time
    assert all(span.start_time <= span.end_time for span in stages)
    # Both clocks are this machine's.
    assert camera.start_time < frame.start_time < frame.end_time < camera.end_time


async def test_frames_that_fail_say_why(worker: Worker, spans: Spans) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        assert (await client.ask(client.frame(1, named="nope"))).status == pb.UNKNOWN_CODEC
        assert (await client.ask(b"\xff")).status == pb.MALFORMED  # of no frame that is known
    frame, stage = spans.taken()
    assert (frame.name, stage.name) == (FRAME, "receive")
    assert frame.attributes["splitpoint.status"] == "unknown_codec"
    assert frame.status.status_code is StatusCode.ERROR
    assert "nope" in (frame.status.description or "")


@pytest.mark.parametrize("said", ["", "garbage", f"00-{TRACE}-{'0' * 16}-01", "00-" + 9000 * "a"])
async def test_what_is_no_traceparent_begins_a_trace(
    worker: Worker, spans: Spans, said: str
) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        assert (await client.ask(client.frame(1, traceparent=said))).status == pb.OK
    frame = next(span for span in spans.taken() if span.name == FRAME)
    assert frame.parent is None


async def test_the_sampling_is_the_senders(small_bundle: Bundle) -> None:
    spans = Spans(TracerProvider(ParentBased(ALWAYS_OFF)))
    async with (
        local_worker(small_bundle, traces=FrameTraces(spans.provider)) as worker,
        RawClient(worker) as client,
    ):
        await client.hello()
        for flags, count in (("00", 0), ("01", 6)):
            traceparent = f"00-{TRACE}-{PARENT}-{flags}"
            await client.ask(client.frame(1, traceparent=traceparent))
            assert len(spans.taken()) == count
        await client.ask(client.frame(1))
        assert not spans.taken()


async def test_without_a_tracer_the_field_is_ignored(small_bundle: Bundle) -> None:
    async with (
        local_worker(small_bundle) as worker,
        RawClient(worker) as client,
    ):
        await client.hello()
        traceparent = f"00-{TRACE}-{PARENT}-01"
        assert (await client.ask(client.frame(1, traceparent=traceparent))).status == pb.OK
