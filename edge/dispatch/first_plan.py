"""The first plan: the device, the link and the worker are measured, and all splits compared.

Where no worker is there, the best that the device can do alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.plan.plan import Plan
from splitpoint.partition.plan.planner import Report
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.profile import Profile

from ..errors import AgentError
from ..link.probe import probe_link
from ..link.workers import Workers
from ..store.prepare import Prepared
from .arms import Arms
from .auto_plan import (
    AutoPlan,
    candidates,
    cloud_times,
    device_profiles,
    plan_now,
    runtimes_to_measure,
)
from .conditions import Conditions
from .dispatcher import Dispatcher

# A frame that may take long is wanted soon all the same: within this, or within so many times what
# the quickest way takes. Else a live picture would be seconds old before a queue were too long.
SOON_MS, SLOW = 1000.0, 3.0


@dataclass(frozen=True, slots=True)
class FirstPlan:
    """The link as it was planned for, what every split costs, and how the choice was made."""

    link: Link
    table: CostTable
    report: Report

    def dispatcher(self, manifest: Manifest, auto: AutoPlan, budget_ms: float) -> Dispatcher:
        """One that chooses among the candidates which keep to the limits."""
        table, link = self.table, self.link
        allowed = OnlinePlanner(table, manifest, auto.objective, auto.constraints).allowed
        rate = 125e3 * link.percentile_mbps(50)
        upload_ms = 1e3 * table.sends * table.nbytes / rate
        metrics = table.metrics(
            upload_ms, round_trip_ms=link.round_trip_ms, queue_ms=0.0, server_factor=1.0
        )
        price = np.zeros(len(table))
        if set(auto.objective.weights) != {"latency"}:
            price = auto.objective.scores(metrics)
        budget_ms = within_ms = min(budget_ms, auto.constraints.deadline_ms or budget_ms)
        least_ms = float(metrics.latency_ms[allowed].min())
        within_ms = min(within_ms, max(SOON_MS, SLOW * least_ms))
        return Dispatcher(
            Arms.of(table, allowed, price),
            within_ms / 1e3,
            Conditions(link.round_trip_ms),
            rate,
            patience_s=None if "latency" in auto.objective.weights else budget_ms / 1e3,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisDevice:
    """What this device is measured with: on the thread `compute`, and kept in `folder`.

    `runtime` is the one that is asked for, or auto; see `device_profiles` for the others.
    """

    compute: Executor
    folder: Path
    runtime: str
    providers: Sequence[str]
    threads: int
    slowdown: float

    def runtimes(self, manifest: Manifest) -> tuple[str, ...]:
        """Those that a plan may choose from."""
        return runtimes_to_measure(manifest, self.runtime)

    async def profiles(self, prepared: Prepared, auto: AutoPlan) -> list[Profile]:
        """What is given or kept, or else measured now; what is missing for that is fetched."""
        runtimes = self.runtimes(prepared.manifest)
        for name in runtimes:
            await prepared.fetch_segments(len(prepared.manifest.segments), name)
        for boundary in prepared.manifest.boundaries:
            await prepared.fetch_codecs(boundary.id)
        bundle = prepared.bundle()
        return await asyncio.get_running_loop().run_in_executor(
            self.compute,
            lambda: device_profiles(
                bundle,
                auto,
                runtimes,
                providers=self.providers,
                folder=self.folder,
                threads=self.threads,
                slowdown=self.slowdown,
            ),
        )


async def first_plan(
    prepared: Prepared,
    auto: AutoPlan,
    workers: Workers,
    device: ThisDevice,
    *,
    codec: str,
) -> FirstPlan:
    """Measures what is not given, and plans.

    Raises `AgentError` when the worker does not serve the bundle, and what profiling, probing and
    planning raise.
    """
    server = workers.current.server
    if prepared.serving is None:
        raise AgentError(
            f"{server} does not serve the bundle {prepared.folder}",
            "serve the same bundle, or leave out --bundle",
        )
    link = auto.link or await probe_link(await workers.current.connection.live(), server)
    profiles = await device.profiles(prepared, auto)
    table = candidates(prepared.bundle(), auto, profiles, cloud_times(prepared.serving.info), codec)
    report = plan_now(prepared.bundle(), auto, table, prepared.serving.load, link)
    return FirstPlan(link, table, report)


async def plan_alone(prepared: Prepared, auto: AutoPlan, device: ThisDevice) -> Plan:
    """The best way to run all on the device, in one of its runtimes, while no worker is there.

    Where none keeps to a limit on time, the quickest. Raises `PlanError` where other limits forbid
    them all.
    """
    profiles = await device.profiles(prepared, auto)
    nowhere = CloudTimes(segment_ms=(0.0,) * len(prepared.manifest.segments))
    table = candidates(prepared.bundle(), auto, profiles, nowhere, "auto")
    planner = OnlinePlanner(table, prepared.manifest, auto.objective, auto.constraints)
    metrics = table.metrics(
        np.zeros(len(table)), round_trip_ms=0.0, queue_ms=0.0, server_factor=1.0
    )
    here = planner.allowed & (table.sends == 0)
    if not here.any():
        raise PlanError(
            f"all of {prepared.manifest.name} on the device breaks a limit that you gave",
            "start the worker, or give other limits",
        )
    scores = np.where(here, planner.scores(metrics, table.spread_ms), np.inf)
    if not np.isfinite(scores).any():
        scores = np.where(here, metrics.latency_ms, np.inf)
    best = int(scores.argmin())
    return Plan(
        boundary=int(table.boundary[best]),
        codec=table.codec[best],
        runtime=table.runtime[best],
        why="no worker is there",
    )
