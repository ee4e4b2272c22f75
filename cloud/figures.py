"""What a worker counts: plain numbers, cheap enough for every frame.

They are changed and read on the event loop alone, without locks. `metrics` shows them to
Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from splitpoint.proto import splitpoint_pb2 as pb

from .access.refusals import Refusals
from .compute.served_model import ServedModel
from .unexpected import Unexpected

# From what a GPU takes for a small net to the longest wait that is promised.
SECONDS = (
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Spread:
    """How often a quantity was at most each of `bounds`, the last one unbounded, and its sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # each between its bound and the one before
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class BoundaryFigures:
    """Of the frames that entered at one boundary. Bytes are those of whole messages."""

    __slots__ = (
        "batches", "bytes_received", "bytes_sent", "compute_s", "decode_s", "queue_s", "statuses",
    )  # fmt: skip

    def __init__(self) -> None:
        self.statuses = [0] * len(pb.Status.keys())  # answers by the wire's status
        self.bytes_received = self.bytes_sent = 0
        self.queue_s, self.decode_s, self.compute_s = (
            Spread(SECONDS),
            Spread(SECONDS),
            Spread(SECONDS),
        )
        self.batches = Spread(BATCHES)  # samples that were computed together with a frame

    def answered(self, queue_us: int, decode_us: int, compute_us: int, batch: int) -> None:
        """An answer with outputs was computed in these times."""
        self.statuses[pb.OK] += 1
        self.queue_s.add(1e-6 * queue_us)
        self.decode_s.add(1e-6 * decode_us)
        self.compute_s.add(1e-6 * compute_us)
        self.batches.add(batch)


class ModelFigures:
    """Of one model. `elsewhere` is for messages that name none of its boundaries."""

    def __init__(self, name: str, digest: str, boundaries: int) -> None:
        self.name, self.digest = name, digest
        # The last boundary is the output, where nothing enters.
        self.boundaries = [BoundaryFigures() for _ in range(boundaries - 1)]
        self.elsewhere = BoundaryFigures()
        self.streams = 0  # open now

    def at(self, boundary: int) -> BoundaryFigures:
        """Of a boundary as a client named it."""
        if boundary < len(self.boundaries):
            return self.boundaries[boundary]
        return self.elsewhere


class Figures:
    """Of a whole worker: its models by digest, and the streams that it would not open.

    `ingest_restarts` are the ingest processes that ended and were replaced.
    """

    def __init__(self) -> None:
        self.models: dict[str, ModelFigures] = {}
        self.ingest_restarts = 0
        self.refusals = Refusals()
        self.unexpected = Unexpected()

    def of(self, model: ServedModel) -> ModelFigures:
        """The figures of a model that is served; they begin at zero when it is first asked for."""
        digest = model.bundle.digest
        if digest not in self.models:
            name = model.bundle.manifest.name
            self.models[digest] = ModelFigures(name, digest, len(model.boundaries))
        return self.models[digest]

    def forget(self, digest: str) -> None:
        """The model is served no longer."""
        self.models.pop(digest, None)
