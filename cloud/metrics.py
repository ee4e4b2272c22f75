"""A worker's figures for Prometheus. Everything is put together when it is asked for.

Models and boundaries are labels because there are only as many as are served; nothing that a
client sends becomes one.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from splitpoint.partition.energy.gpu_state import GpuState
from splitpoint.proto import splitpoint_pb2 as pb

from .access.refusals import Refusal
from .compute.served_model import ServedModel
from .engine.engines import Engines
from .engine.quarantine import Quarantine
from .figures import BoundaryFigures, Figures, ModelFigures, Spread
from .unexpected import Stage

PREFIX = "splitpoint_worker_"
MODEL = ("model", "digest")
AT = (*MODEL, "boundary")
LOOP_S = 5.0  # an event loop that takes longer has nothing to tell
# The statuses that an answer can have, as labels.
STATUSES = {
    number: name.lower() for name, number in pb.Status.items() if number != pb.STATUS_UNSPECIFIED
}


class WorkerCollector(Collector):
    """Reads figures, engine and GPUs. Construct it on the event loop, where all of that changes.

    Whatever thread asks: what is told is put together on the loop, so that nothing changes
    meanwhile, and all numbers are of the same moment. Only the GPUs are asked by the thread.
    `count`, where there is one, has brought the figures up to date when it returns.
    """

    def __init__(
        self,
        figures: Figures,
        models: Mapping[str, ServedModel],
        engine: Engines,
        quarantine: Quarantine,
        gpus: Sequence[GpuState] = (),
        count: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._figures, self._models, self._engine = figures, models, engine
        self._quarantine, self._gpus, self._count = quarantine, gpus, count
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()

    def collect(self) -> Iterator[Metric]:
        """All families, those without samples too."""
        if threading.get_ident() == self._loop_thread:
            yield from self._figure_metrics()
        else:
            yield from asyncio.run_coroutine_threadsafe(self._figures_now(), self._loop).result(
                LOOP_S
            )
        if self._gpus:
            yield from _gpu_metrics(self._gpus)

    async def _figures_now(self) -> list[Metric]:
        if self._count is not None:
            await self._count()
        return list(self._figure_metrics())

    def _figure_metrics(self) -> Iterator[Metric]:
        found = list(self._figures.models.values())
        yield from _frame_metrics(found)
        yield from self._engine_metrics()
        streams = _gauge("open_streams", "Clients' streams that are open.", MODEL)
        for figures in found:
            streams.add_metric(_model(figures), figures.streams)
        yield streams
        refusals = _counter("refusals", "Who was sent away, by reason.", ("reason",))
        counts = self._figures.refusals.counts
        for reason in Refusal:
            refusals.add_metric([reason.value], counts[reason])
        yield refusals
        unexpected = _counter(
            "unexpected_errors", "Exceptions that cost a frame, by stage; see the log.", ("stage",)
        )
        for stage in Stage:
            unexpected.add_metric([stage.value], self._figures.unexpected.counts[stage])
        yield unexpected

    def _engine_metrics(self) -> Iterator[Metric]:
        load = self._engine.load()
        for name, value, what in (
            ("queued_frames", load.queued, "Frames that wait or are being computed."),
            ("queued_bytes", self._engine.queued_bytes, "Bytes of their tensors."),
            ("utilisation", load.utilisation, "Share of the last second spent computing, 0 to 1."),
            ("slowdown", load.slowdown, "What computing takes, over what was measured before."),
            ("quarantine", len(self._quarantine), "Broken frames that are remembered."),
            ("can_compute", self._engine.can_compute, "1, or 0 where no model can be computed."),
        ):
            gauge = _gauge(name, what)
            gauge.add_metric([], value)
            yield gauge
        for name, count, what in (
            ("quarantined_frames", self._quarantine.added, "Frames that broke a batch."),
            ("engine_restarts", self._engine.restarts, "Compute threads that were replaced."),
            ("engine_errors", self._engine.errors, "Unexpected exceptions in planning, computing."),
            ("ingest_restarts", self._figures.ingest_restarts, "Ingest processes that ended."),
        ):
            counter = _counter(name, what)
            counter.add_metric([], count)
            yield counter
        waits = _gauge("predicted_wait_seconds", "What a frame that came now would wait.", AT)
        for digest, model in self._models.items():
            for boundary, ms in enumerate(self._engine.load(model).wait_ms):
                name = model.bundle.manifest.name
                waits.add_metric([name, digest[:12], str(boundary)], ms / 1e3)
        yield waits


def _frame_metrics(models: Iterable[ModelFigures]) -> Iterator[Metric]:
    frames = _counter("frames", "Frames by the status of their answers.", (*AT, "status"))
    received = _counter("received_bytes", "Bytes of clients' messages.", AT)
    sent = _counter("sent_bytes", "Bytes of answers.", AT)
    batches = _histogram("batch_samples", "Samples computed together with a frame.", AT)
    stages = _histogram("stage_seconds", "Stages of frames that were answered.", (*AT, "stage"))
    for model in models:
        places: list[tuple[str, BoundaryFigures]] = [("none", model.elsewhere)]
        places += [(str(number), at) for number, at in enumerate(model.boundaries)]
        for name, at in places:
            labels = [*_model(model), name]
            for status, word in STATUSES.items():  # a rate needs the zero before the first one
                frames.add_metric([*labels, word], at.statuses[status])
            received.add_metric(labels, at.bytes_received)
            sent.add_metric(labels, at.bytes_sent)
            if at is model.elsewhere:
                continue
            _add_spread(batches, labels, at.batches)
            for stage, spread in (
                ("queue", at.queue_s), ("decode", at.decode_s), ("compute", at.compute_s),
            ):  # fmt: skip
                _add_spread(stages, [*labels, stage], spread)
    yield from (frames, received, sent, batches, stages)


def _gpu_metrics(gpus: Sequence[GpuState]) -> Iterator[Metric]:
    used = _gauge("gpu_memory_used_bytes", "Of the GPU, by all processes.", ("gpu",))
    total = _gauge("gpu_memory_bytes", "The GPU's memory.", ("gpu",))
    busy = _gauge("gpu_utilisation", "Share of the time with a kernel running.", ("gpu",))
    for number, gpu in enumerate(gpus):
        reading = gpu.read()
        if reading is not None:
            used.add_metric([str(number)], reading.memory_used_bytes)
            total.add_metric([str(number)], reading.memory_total_bytes)
            if reading.utilisation is not None:
                busy.add_metric([str(number)], reading.utilisation)
    yield from (used, total, busy)


def _add_spread(family: HistogramMetricFamily, labels: list[str], spread: Spread) -> None:
    counts = list(itertools.accumulate(spread.counts.copy()))
    bounds = [*(str(float(bound)) for bound in spread.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), spread.total)


def _model(figures: ModelFigures) -> list[str]:
    return [figures.name, figures.digest[:12]]


def _gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, what, labels=labels)


def _counter(name: str, what: str, labels: tuple[str, ...] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, what, labels=labels)


def _histogram(name: str, what: str, labels: tuple[str, ...]) -> HistogramMetricFamily:
    return HistogramMetricFamily(PREFIX + name, what, labels=labels)
