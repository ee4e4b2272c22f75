"""What frames take of device and link, and when they are done with each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import Floats

LOGISTIC = 1.702


@dataclass(frozen=True, slots=True)
class Work:
    """What the arms take under the conditions of now, in seconds and bytes, `[n]`.

    `after_s` passes from the leaving of a frame's bytes to its answer: round trip, wait, compute.
    `extra` is what price and loss are worth, as a share of a frame in time. Times on the device lie
    around `edge_s` with that `spread`, a standard deviation as a share of them. `sends` says which
    of them use the link. `hurry` is what a budget's worth of latency costs, as such a share.
    """

    edge_s: Floats
    encode_s: Floats
    nbytes: Floats
    after_s: Floats
    extra: Floats
    sends: npt.NDArray[np.bool_]
    spread: float = 0.0
    hurry: float = 0.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A frame that is not sent yet: it is `computed_s`, then `ready_s` for the link.

    It is in time if its bytes have left by `leaves_s`.
    """

    computed_s: float
    ready_s: float
    nbytes: float
    leaves_s: float


def likely(left_s: float, device_s: float, spread: float) -> float:
    """The chance of computing in time what takes `device_s` and is expected to have `left_s` left.

    Times are normal with that `spread`, as a share of them; its distribution function by the
    logistic one, which is nowhere off by more than 0.01.
    """
    deviations = min(max(left_s / (spread * device_s + 1e-6), -9.0), 9.0)
    return 1 / (1 + math.exp(-LOGISTIC * deviations))
