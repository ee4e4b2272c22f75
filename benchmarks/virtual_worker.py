"""A worker's schedule under a virtual clock: what becomes of a million frames in a minute.

The schedule is the worker's own (`cloud/schedule/schedule.py`); only the device is missing: a step
takes exactly as long as its batch times say. Decoding, gRPC and Python's own time are not in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Refused
from splitpoint.cloud.schedule.schedule import Schedule

# A frame that comes: at (seconds), of device number, at boundary.
Arrival = tuple[float, int, int]


@dataclass(frozen=True, kw_only=True)
class TimedModel:
    """A model's times on some device. `source` says where they come from, in words."""

    name: str
    source: str
    batch_times: BatchTimes

    @staticmethod
    def load(path: Path) -> TimedModel:
        """From a JSON document.

        `{name, source, max_batch, padded, segments: [{"1": ms, "2": ms, …}, …]}`: milliseconds of
        every segment by batch size, 1 among them; with `padded`, a batch runs as the next larger of
        the sizes. Raises `KeyError` or `ValueError` for another document.
        """
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [{int(size): float(ms) for size, ms in row.items()} for row in found["segments"]]
        times = BatchTimes(rows, int(found["max_batch"]), padded=bool(found.get("padded")))
        return TimedModel(name=found["name"], source=found["source"], batch_times=times)

    def save(self, path: Path, *, padded: bool) -> None:
        """Writes what `load` reads, for powers of two."""
        most = self.batch_times.max_batch
        sizes = sorted({1 << power for power in range(most.bit_length())} | {most})
        document: dict[str, Any] = {
            "name": self.name,
            "source": self.source,
            "max_batch": most,
            "padded": padded,
            "segments": [
                {str(size): round(1e3 * row[size], 6) for size in sizes}
                for row in self.batch_times.seconds
            ],
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@dataclass
class Share:
    """What became of the frames that came after the warm-up."""

    offered: int = 0
    refused: int = 0
    busy_s: float = 0.0
    seconds: float = 0.0
    waited_ms: list[float] = field(default_factory=list)  # from arrival to answer
    steps: int = 0
    samples: int = 0

    @property
    def refusals(self) -> float:
        """The share that was refused, 0 to 1."""
        return self.refused / max(self.offered, 1)

    @property
    def batch(self) -> float:
        """Mean samples a step."""
        return self.samples / max(self.steps, 1)

    def percentile_ms(self, q: float) -> float:
        """Of the time from arrival to answer."""
        return float(np.percentile(self.waited_ms, q)) if self.waited_ms else math.nan


def poisson(
    per_s: float, seconds: float, cuts: Sequence[int], shares: Sequence[float], seed: int,
    devices: int,
) -> list[Arrival]:  # fmt: skip
    """The superposed frames of many devices that know nothing of each other."""
    chance = np.random.default_rng(seed)
    times = np.sort(chance.uniform(0, seconds, chance.poisson(per_s * seconds)))
    senders = chance.integers(0, devices, len(times))
    weights = np.array(shares, float) / sum(shares)
    at = chance.choice(np.array(cuts), len(times), p=weights)
    return list(zip(times.tolist(), senders.tolist(), at.tolist(), strict=True))


def serve(
    model: TimedModel, arrivals: Iterable[Arrival], budget_s: float, warm_s: float, end_s: float
) -> Share:
    """Gives the frames to a schedule. Asserts that what it took is done by its deadline."""
    schedule: Schedule[Job] = Schedule(model.batch_times.max_batch)
    share = Share(seconds=end_s - warm_s)
    came_s: dict[Job, float] = {}
    step_ends_s, step_s = math.inf, 0.0

    def go_on(now_s: float) -> None:
        """Ends the step that is over, and begins the next."""
        nonlocal step_ends_s, step_s
        if step_ends_s < math.inf:
            for job in schedule.done(now_s, step_s):
                assert now_s <= job.deadline_s + 1e-9
                arrived_s = came_s.pop(job)
                if arrived_s >= warm_s:
                    share.waited_ms.append(1e3 * (now_s - arrived_s))
        step, dropped = schedule.next(now_s)
        assert not dropped
        step_ends_s = math.inf
        if step is not None:
            step_s = step.planned_s
            step_ends_s = now_s + step_s
            if now_s >= warm_s:
                share.busy_s += step_s
                share.steps += 1
                share.samples += len(step.carried) + len(step.joining)

    for at_s, device, boundary in arrivals:
        while step_ends_s <= at_s:
            go_on(step_ends_s)
        job = Job(model=model, boundary=boundary, samples=1, deadline_s=at_s + budget_s,
                  client=str(device))  # fmt: skip
        counts = at_s >= warm_s
        share.offered += counts
        try:
            schedule.offer(at_s, job)
        except Refused:
            share.refused += counts
            continue
        came_s[job] = at_s
        if step_ends_s == math.inf:
            go_on(at_s)
    return share
