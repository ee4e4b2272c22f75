"""What a Ray application of workers can be told. Needs neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ServeError
from ..options import StreamLimits, WorkerOptions

APP, DEPLOYMENT = "splitpoint", "worker"
ROUTE = f"/{APP}"  # without one Ray's proxies would not know the application
AUTO_REPLICAS = "auto"


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Bundles, and how replicas serve them; `ServeError` for what makes no sense.

    Paths are those of the nodes that run replicas. `replicas` is a number, or "auto" for
    `min_replicas` to `max_replicas` by queue time. `max_streams` is how many a replica may hold,
    `max_streams_per_client` how many of one client; one that was silent for `idle_s` seconds is
    ended. A stream older than `max_stream_s` seconds is ended in order, and its device opens
    another: without that, no load would ever move to a replica that is new. `tokens` is a file of
    clients (docs/guides/secure.md); without it anybody is let in who can reach Ray's proxy.
    Replicas start from times that were measured on their node before, but for those that are to
    `measure`.
    """

    bundles: Sequence[str]
    device: str = WorkerOptions.device
    runtime: str = WorkerOptions.runtime
    precision: str = WorkerOptions.precision
    max_batch: int = WorkerOptions.max_batch
    max_queued_mb: int = WorkerOptions.max_queued_bytes >> 20
    replicas: int | str = 1
    min_replicas: int = 1
    max_replicas: int = 8
    cpus: float = 1.0
    gpus: float = 0.0
    grace_s: float = WorkerOptions.grace_s
    max_streams: int = 1000
    max_streams_per_client: int = 1000
    idle_s: float = StreamLimits().idle_s
    max_stream_s: float = 600.0
    tokens: str = ""
    measure: bool = False

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ServeError("there is no bundle to serve", "name one or more NAME.split")
        if self.replicas != AUTO_REPLICAS and (
            not isinstance(self.replicas, int) or self.replicas < 1
        ):
            raise ServeError(
                f"{self.replicas!r} replicas cannot be run", "give a number from 1 on, or auto"
            )
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ServeError(
                f"{self.min_replicas} to {self.max_replicas} replicas is no range",
                "give min_replicas from 1 on, and max_replicas not below it",
            )
        self.of_worker()  # refuses what no worker can do

    def of_worker(self) -> WorkerOptions:
        """What one replica is told."""
        return WorkerOptions(
            device=self.device,
            runtime=self.runtime,
            precision=self.precision,
            max_batch=self.max_batch,
            max_queued_bytes=self.max_queued_mb << 20,
            grace_s=self.grace_s,
            measure=self.measure,
            limits=StreamLimits(
                max_streams=self.max_streams,
                max_streams_per_client=self.max_streams_per_client,
                idle_s=self.idle_s,
                max_age_s=self.max_stream_s,
            ),
        )
