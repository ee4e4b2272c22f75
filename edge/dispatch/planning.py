"""Which plan an agent begins with: the one that is named, the best of all, or the best alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from splitpoint.codec import CodecSet
from splitpoint.partition.bundle.segment_files import ONNX, check_runtime
from splitpoint.partition.plan.plan import Plan, named_plan
from splitpoint.proto.status import UnreachableError

from ..link.workers import Workers
from ..store.prepare import Prepared
from .auto_plan import AutoPlan
from .first_plan import FirstPlan, ThisDevice, first_plan, plan_alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What a user asked for: `split` and `codec`, each of which may be auto, as `auto` says.

    With `adapt` a plan that was measured is kept the best one, for frames that have `budget_ms`.
    """

    prepared: Prepared
    codecs: CodecSet
    device: ThisDevice
    auto: AutoPlan
    split: str
    codec: str
    adapt: bool
    budget_ms: float

    def check(self) -> None:
        """Raises `PlanError` for a runtime that the bundle has no files for."""
        if self.device.runtime != "auto":
            check_runtime(self.prepared.manifest, self.device.runtime)

    async def named(self) -> Plan:
        """The plan that the user named; raises `PlanError` naming what the bundle has."""
        for boundary in self.prepared.manifest.boundaries:
            if self.split == str(boundary.id):
                await self.prepared.fetch_codecs(boundary.id)
        return self._named(self.split, self.codec)

    def local(self) -> Plan:
        """All on the device."""
        return self._named("local", "auto")

    async def measured(self, workers: Workers) -> FirstPlan:
        """The best for this device, its link and the worker's load, all of them measured."""
        return await first_plan(self.prepared, self.auto, workers, self.device, codec=self.codec)

    async def alone(self, away: UnreachableError) -> Plan:
        """The plan that is named, or the best of those that need no worker: none is there.

        Raises `UnreachableError` where the cache lacks files that finishing all frames here needs.
        """
        manifest = self.prepared.manifest
        missing = await self.prepared.missing(*self._needed_alone())
        if missing:
            others = f" and {len(missing) - 1} more files are" if missing[1:] else " is"
            raise UnreachableError(
                f"{away.what}, and the cache does not have all of {manifest.name} "
                f"({missing[0]}{others} missing)",
                f"{away.remedy}; leave it on until the device has fetched the rest",
            )
        if self.split == "auto":
            return await plan_alone(self.prepared, self.auto, self.device)
        return await self.named()

    def _needed_alone(self) -> tuple[dict[str, int], list[int]]:
        """How many first segments in each runtime, and the tables of which boundaries."""
        manifest = self.prepared.manifest
        boundaries, last = [boundary.id for boundary in manifest.boundaries], len(manifest.segments)
        if self.split == "auto":
            return dict.fromkeys(self.device.runtimes(manifest), last), boundaries
        named = {**{str(at): at for at in boundaries}, "input": 0}.get(self.split, last)
        runtime = ONNX if self.device.runtime == "auto" else self.device.runtime
        if named == last:
            return {runtime: last}, []
        # What the named split does not run is finished in float32.
        return {runtime: named, ONNX: last}, [named]

    def _named(self, split: str, codec: str) -> Plan:
        plan = named_plan(self.prepared.manifest, self.codecs, split, codec)
        self.auto.constraints.check_named(plan.boundary, self.prepared.manifest)
        runtime = self.device.runtime
        return plan if runtime == "auto" else replace(plan, runtime=runtime)
