"""One frame on its way, and the results that it may end in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitpoint.codec import Array, SplitpointError
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto.session.answer_times import Answer

from ..given import Inputs
from ..result import Outcome, Result, Stages
from .edge_half import EdgePart


@dataclass(kw_only=True)
class Frame:
    """What was taken in, since `start_s`, and the plan that it began with.

    `may_expire` is true of a live source's, whose frames are worth nothing when they are late.
    `computed` is called once the compute thread is done with it.
    """

    id: int
    plan: Plan
    inputs: Inputs
    batch: int
    budget_ms: float
    labels: Sequence[str] = ()
    metadata: Any = None
    traceparent: str = ""
    may_expire: bool = False
    computed: Callable[[], None] = lambda: None
    start_s: float = field(default_factory=time.perf_counter)
    bytes_up: int = 0  # of all that was sent for it

    @property
    def elapsed_ms(self) -> float:
        """Since it was taken in."""
        return 1e3 * (time.perf_counter() - self.start_s)

    @property
    def left_ms(self) -> float:
        """Of its budget."""
        return self.budget_ms - self.elapsed_ms

    def failed(self, error: SplitpointError, outcome: Outcome = Outcome.FAILED) -> Result:
        """It has no answer, and this is why."""
        return Result(
            id=self.id,
            outcome=outcome,
            boundary=self.plan.boundary,
            codec=self.plan.codec,
            total_ms=self.elapsed_ms,
            bytes_up=self.bytes_up,
            why=str(error),
            error=error,
            metadata=self.metadata,
        )

    def skipped(self) -> Result:
        """There was nothing new in it."""
        return Result(
            id=self.id,
            outcome=Outcome.SKIPPED,
            boundary=self.plan.boundary,
            codec=self.plan.codec,
            why="nothing has changed",
            metadata=self.metadata,
        )

    def finished_here(
        self, part: EdgePart, outputs: Mapping[str, Array], here_ms: float, why: str
    ) -> Result:
        """The device has run all of it; `here_ms` is what came after the part before the split."""
        total_ms = self.elapsed_ms
        waited_ms = max(total_ms - part.edge_ms - part.encode_ms - here_ms, 0.0)
        # Who has sent nothing has waited for this device alone.
        for_link_ms = waited_ms if part.tensors else 0.0
        return Result(
            id=self.id,
            outcome=Outcome.LOCAL,
            boundary=self.plan.boundary,
            codec=part.codec,
            outputs=outputs,
            labels=self.labels,
            stages_ms=Stages(
                edge=part.edge_ms + here_ms + waited_ms - for_link_ms,
                encode=part.encode_ms,
                uplink=for_link_ms,
            ),
            total_ms=total_ms,
            bytes_up=self.bytes_up,
            why=why,
            metadata=self.metadata,
        )

    def answered(
        self,
        part: EdgePart,
        answer: Answer,
        outputs: Mapping[str, Array],
        *,
        round_trip_ms: float,
        queued_here_ms: float,
        why: str,
    ) -> Result:
        """The cloud has finished it. `queued_here_ms` is how long it waited to be sent."""
        times, server_ms, queue_ms = answer.reply.times, answer.server_ms, answer.queue_ms
        link_ms = answer.answer_ms - server_ms
        downlink_ms = min(round_trip_ms / 2, link_ms / 2)
        return Result(
            id=self.id,
            outcome=Outcome.ANSWERED,
            boundary=self.plan.boundary,
            codec=part.codec,
            outputs=outputs,
            labels=self.labels,
            stages_ms=Stages(
                edge=part.edge_ms,
                encode=part.encode_ms,
                # Waiting for a credit is waiting for the link: frames before this one hold it.
                uplink=link_ms - downlink_ms + max(queued_here_ms, 0.0),
                queue=queue_ms,
                cloud=server_ms - queue_ms,
                downlink=downlink_ms,
            ),
            total_ms=self.elapsed_ms,
            bytes_up=self.bytes_up,
            cloud_compute_ms=min(times.compute_us / 1e3, server_ms),
            cloud_batch=times.batch,
            why=why,
            metadata=self.metadata,
        )
