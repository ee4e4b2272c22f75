"""What a simulation is about: the times of all ways, the frames that come, what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.plan.costs import OWN_MS, CostTable, Floats
from splitpoint.partition.plan.link import Link

LEAST_SPREAD = 0.05  # of times on the device, whatever a short profile saw of it
P95_DEVIATIONS = 1.645  # of a normal distribution: where its 95th percentile lies


@dataclass(frozen=True, slots=True)
class Truth:
    """What each candidate of a cost table really takes, `[n]` in seconds and bytes.

    Sizes of payloads and times on the device are log-normal: `bytes_spread` and `edge_spread` are
    the deviations of their logarithms.
    """

    edge_s: Floats
    encode_s: Floats
    nbytes: Floats
    bytes_spread: Floats
    server_s: Floats
    rest_s: Floats
    edge_spread: float

    @classmethod
    def of(cls, table: CostTable, slowdown: float = 1.0) -> Truth:
        """On a device that is so many times slower than the table's."""
        last = int(table.boundary.max())
        alone = next(
            i for i in range(len(table)) if table.boundary[i] == last and table.runtime[i] == ONNX
        )
        edge_s = table.edge_ms / 1e3 * slowdown
        return cls(
            edge_s=edge_s,
            encode_s=table.encode_ms / 1e3 * slowdown,
            nbytes=table.nbytes * table.sends,
            bytes_spread=np.log(table.p95_bytes / np.maximum(table.nbytes, 1.0) + 1e-9)
            / P95_DEVIATIONS
            * table.sends,
            server_s=(table.server_ms + OWN_MS) / 1e3,
            rest_s=np.maximum(edge_s[alone] - edge_s, 0.0),
            edge_spread=max(
                math.log1p(table.spread_ms[alone] / table.edge_ms[alone]) / P95_DEVIATIONS,
                LEAST_SPREAD,
            ),
        )


@dataclass(eq=False)
class SimFrame:
    """A frame on its way. `arm` is the candidate that it takes, -1 before it has begun."""

    number: int
    taken_s: float
    deadline_s: float
    arm: int = -1
    took_s: float = 0.0  # on the device, before anything was sent
    nbytes: float = 0.0
    left_s: float = math.inf
    is_computed: bool = False  # as far as its arm has the device do it
    finishing: bool = False
    done: bool = False
    holds_credit: bool = False

    @property
    def begun(self) -> bool:
        """Whether it has an arm."""
        return self.arm >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happens to all policies alike: `frames` every `interval_s` from `start_s` on.

    `wait_s` is the worker's queue at a time. Results depend on `seed` alone.
    """

    link: Link
    interval_s: float
    budget_s: float
    frames: int
    start_s: float = 2.0
    wait_s: Callable[[float], float] = lambda now_s: 0.0
    seed: int = 1


@dataclass(slots=True)
class Tally:
    """What became of the frames."""

    frames: int
    in_time: int = 0
    used: dict[object, int] = field(default_factory=dict)
    nbytes: float = 0.0
    latency_s: list[float] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """Of the frames, in time."""
        return 100 * self.in_time / self.frames

    def use(self, what: object) -> None:
        """Counts it once more."""
        self.used[what] = self.used.get(what, 0) + 1
