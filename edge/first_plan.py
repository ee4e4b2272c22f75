"""The first plan: the device, the link and the worker are measured, and all splits compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.bundle import Manifest
from splitpoint.partition.costs import CostTable
from splitpoint.partition.link import Link
from splitpoint.partition.online import OnlinePlanner
from splitpoint.partition.planner import Report

from .auto_plan import AutoPlan, candidates, device_profiles, plan_now, runtimes_to_measure
from .controller import Controller
from .errors import AgentError
from .link_probe import probe_link
from .prepare import Prepared
from .workers import Workers


@dataclass(frozen=True, slots=True)
class FirstPlan:
    """The link as it was planned for, what every split costs, and how the choice was made."""

    link: Link
    table: CostTable
    report: Report

    def controller(self, manifest: Manifest, auto: AutoPlan, budget_ms: float) -> Controller:
        """One that goes on from here."""
        plan, table = self.report.chosen, self.table
        keys = list(zip(table.boundary, table.codec, table.runtime, strict=True))
        controller = Controller(
            table,
            OnlinePlanner(table, manifest, auto.objective, auto.constraints),
            start=keys.index((plan.boundary, plan.codec, plan.runtime)),
            budget_ms=budget_ms,
            round_trip_ms=self.link.round_trip_ms,
        )
        controller.knows(
            time.perf_counter(), self.link.probed_mbps or (self.link.percentile_mbps(50),)
        )
        return controller


async def first_plan(
    prepared: Prepared,
    auto: AutoPlan,
    workers: Workers,
    *,
    codec: str,
    runtime: str,
    providers: Sequence[str],
    compute: Executor,
    folder: Path,
    threads: int,
    slowdown: float,
) -> FirstPlan:
    """Measures what is not given, and plans; profiles are kept in `folder`.

    Raises `AgentError` when the worker does not serve the bundle, and what profiling, probing and
    planning raise.
    """
    server = workers.current.server
    if prepared.info is None or prepared.load is None:
        raise AgentError(
            f"{server} does not serve the bundle {prepared.folder}",
            "serve the same bundle, or leave out --bundle",
        )
    link = auto.link or await probe_link(await workers.current.connection.live(), server)
    runtimes = runtimes_to_measure(prepared.manifest, runtime)
    for name in runtimes:
        await prepared.segments(len(prepared.manifest.segments), name)
    for boundary in prepared.manifest.boundaries:
        await prepared.tables(boundary.id)
    bundle = prepared.bundle()
    profiles = await asyncio.get_running_loop().run_in_executor(
        compute,
        lambda: device_profiles(
            bundle,
            auto,
            runtimes,
            providers=providers,
            folder=folder,
            threads=threads,
            slowdown=slowdown,
        ),
    )
    table = candidates(bundle, auto, profiles, prepared.info, codec)
    return FirstPlan(link, table, plan_now(bundle, auto, table, prepared.load, link))
