"""A run's figures for Prometheus, which the extra `metrics` brings the client of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from splitpoint.partition.energy.meter import EnergyReading
from splitpoint.proto.address import join_address

from .agent import EdgeAgent
from .errors import AgentError
from .result import Outcome, Result

# From what a fast device takes for a small net to the usual budget of a frame.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class MetricsSink:
    """Serves `http://HOST:PORT/metrics` from a thread of its own until it is closed.

    Port 0 takes any free one; `address` says which. Raises `AgentError` for one that is in use.
    """

    def __init__(self, host: str, port: int) -> None:
        self._registry = registry = CollectorRegistry()
        self._frames = Counter(
            "splitpoint_frames", "Frames by how they ended.", ["outcome"], registry=registry
        )
        for outcome in Outcome:  # a rate needs the zero before the first one
            self._frames.labels(outcome.value)
        self._seconds = Histogram(
            "splitpoint_frame_seconds",
            "From a frame's start to its answer.",
            registry=registry,
            buckets=SECONDS,
        )
        self._stages = Histogram(
            "splitpoint_stage_seconds",
            "The stages of the frames that have an answer.",
            ["stage"],
            registry=registry,
            buckets=SECONDS,
        )
        self._bytes_up = Counter("splitpoint_bytes_up", "Bytes of frames sent.", registry=registry)
        self._switches = Counter("splitpoint_switches", "Changes of the plan.", registry=registry)
        self._joules = Counter(
            "splitpoint_energy_joules", "The device's energy.", ["kind"], registry=registry
        )
        self._told_j = 0.0
        host = host.strip("[]")
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            why = error.strerror or str(error)
            raise AgentError(
                f"metrics cannot listen on {join_address(host, port)}: {why}",
                "give another --metrics-port",
            ) from error
        self.address = join_address(host, self._server.server_port)

    def follow(self, agent: EdgeAgent) -> None:
        """Also serves the present plan and uplink of an agent that has been entered."""
        boundary = Gauge(
            "splitpoint_split_boundary",
            "The boundary of the present plan.",
            registry=self._registry,
        )
        boundary.set_function(lambda: agent.plan.boundary)
        uplink = Gauge(
            "splitpoint_uplink_mbps",
            "The uplink as it is reckoned with, Mbit/s; 0 if dead, NaN if not known.",
            registry=self._registry,
        )
        uplink.set_function(partial(_or_nan, lambda: agent.uplink_mbps))

        for name, what, of in (
            (
                "splitpoint_camera_drift",
                "How far pictures are from calibration's: above 1 they have left it.",
                lambda: agent.drift.of_limit,
            ),
            (
                "splitpoint_bytes_over_calibrated",
                "The latest payloads' bytes, over what calibration measured for their codecs.",
                lambda: agent.drift.bytes_over_calibrated,
            ),
        ):
            gauge = Gauge(name, f"{what} NaN if not known.", registry=self._registry)
            gauge.set_function(partial(_or_nan, of))

    def add(self, result: Result) -> None:
        """Counts one frame."""
        self._frames.labels(result.outcome.value).inc()
        self._bytes_up.inc(result.bytes_up)
        if not result.outputs:
            return
        self._seconds.observe(result.total_ms / 1e3)
        for stage, ms in result.stages_ms.to_json().items():
            self._stages.labels(stage).observe(ms / 1e3)

    def switched(self) -> None:
        """Counts a change of the plan."""
        self._switches.inc()

    def energy(self, reading: EnergyReading) -> None:
        """The energy so far; what is modelled is never added to what is measured."""
        joules = 0.0 if reading.mj is None else reading.mj / 1e3
        if joules > self._told_j:
            self._joules.labels(reading.kind).inc(joules - self._told_j)
            self._told_j = joules

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _or_nan(value: Callable[[], float | None]) -> float:
    found = value()
    return math.nan if found is None else found
