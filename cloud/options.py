"""What a worker is asked for: every option and its default. Needs no torch."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from splitpoint.partition.bundle.segment_files import ONNX, TORCH
from splitpoint.partition.kept_files import default_cache

from .errors import ServeError
from .schedule.outlook import Batching

if TYPE_CHECKING:
    from .access.security import Security


AUTO = "auto"
RUNTIMES = (TORCH, ONNX)
PRECISIONS = FP32, TF32, BF16, FP16 = ("fp32", "tf32", "bf16", "fp16")
COMPILERS = EAGER, INDUCTOR, TENSORRT = ("none", "inductor", "tensorrt")
MOST_INGEST = 64
SPREAD = 0.3  # of the ages of streams, so that those that began together do not end together


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What streams may be, on a worker. Times are seconds.

    `max_streams` are of all clients, `max_streams_per_client` of one; as many downloads may run.
    A stream without a message for `idle_s` is ended. One that is older than `max_age_s` (0: any
    age) is ended after `move_s` more, in which the client opens another.
    """

    max_streams: int = 4096
    max_streams_per_client: int = 1024
    idle_s: float = 600.0
    max_age_s: float = 0.0
    move_s: float = 5.0

    def spread(self) -> StreamLimits:
        """The same with some lower age: streams that began together shall not end together."""
        return replace(self, max_age_s=self.max_age_s * random.uniform(1 - SPREAD, 1))

    def __post_init__(self) -> None:
        if not (self.max_streams >= 1 and self.max_streams_per_client >= 1):
            raise ServeError("a worker that allows no stream", "allow 1 or more")
        if not (self.idle_s > 0 and self.max_age_s >= 0 and self.move_s >= 0):
            raise ServeError("the time that a stream may last is negative", "give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFile:
    """What `http` gives for a path beside its own, the same for everybody; `policy` is its CSP."""

    content_type: str
    content: bytes
    policy: str


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """See `Worker`. Raises `ServeError` for what no worker can do."""

    listen: str = "127.0.0.1:7070"  # HOST:PORT, port 0 for any free one
    watch: Path | None = None  # bundles in this folder come and go while it runs

    # How models are computed. `profiles` are announced instead of what is measured at the start.
    device: str = AUTO
    runtime: str = AUTO
    precision: str = AUTO
    max_batch: int = 128
    gpu_memory_fraction: float = 1.0  # of each GPU's memory, for torch's tensors and graphs
    batching: Batching = Batching.SUFFIX
    profiles: Sequence[Path] = ()
    # Times of batches that were measured before are taken from this folder, unless `measure`.
    times: Path = field(default_factory=lambda: default_cache() / "worker")
    measure: bool = False
    tune_minutes: float = 0.0  # that a model's first start may try compilers of a GPU for

    # Whom it lets in, and how much of it each may have.
    security: Security | None = None  # beyond loopback it has to be given
    limits: StreamLimits = field(default_factory=StreamLimits)
    max_queued_bytes: int = 1 << 30
    grace_s: float = 10.0  # for what was taken, once it is to stop

    # Processes that take calls, check and decode frames beside this one; 0: it does that itself.
    ingest: int = 0
    traces_to: str = ""  # the collector that ingest processes send spans of frames to

    # How others find it and look into it.
    announce: str = ""  # by mDNS under this name, "auto": the machine's and the port
    metrics: str = ""  # HOST:PORT for Prometheus, "" for nowhere
    http: str = ""  # HOST:PORT on loopback for /healthz and /stats, "" for nowhere
    http_files: Mapping[str, HttpFile] = field(default_factory=dict)  # by path: a page for them
    reflection: bool = False

    def __post_init__(self) -> None:
        for what, given, known in (
            ("runtime", self.runtime, RUNTIMES),
            ("precision", self.precision, PRECISIONS),
        ):
            if given not in (AUTO, *known):
                raise ServeError(f"unknown {what} {given!r}", f"use {AUTO}, {', '.join(known)}")
        if self.max_batch < 1:
            raise ServeError(f"batches of {self.max_batch} samples", "give 1 or more")
        if not 0 < self.gpu_memory_fraction <= 1:
            raise ServeError(
                f"a share of a GPU's memory of {self.gpu_memory_fraction:g}",
                "give more than 0, and 1 at the most",
            )
        if not 0 <= self.tune_minutes < math.inf:
            raise ServeError(
                f"{self.tune_minutes:g} minutes to try compilers in", "give 0 or more minutes"
            )
        if self.max_queued_bytes < 1:
            raise ServeError("a worker that may hold no frame", "give more bytes")
        if not 0 <= self.ingest <= MOST_INGEST:
            raise ServeError(
                f"{self.ingest} ingest processes", f"give 0 to {MOST_INGEST}: no more than cores"
            )
        if not self.grace_s >= 0:
            raise ServeError(f"a grace of {self.grace_s:g} s", "give 0 or more")
