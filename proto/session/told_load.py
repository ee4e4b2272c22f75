"""What a worker says of its load, as far as it says anything that can be believed."""

from __future__ import annotations

import math

from .. import splitpoint_pb2 as pb

MOST_WAITS = 4096  # that are looked at: one for each boundary


def told_load(load: pb.Load) -> pb.Load | None:
    """The load; None where it says nothing of the queue, and whoever gets it keeps what it knew.

    So it does where a number is none, or is below zero: such a worker would look idlest of all.
    """
    numbers = (load.queue_ms, load.slowdown, load.utilisation, *load.wait_ms[:MOST_WAITS])
    sensible = all(0 <= number < math.inf for number in numbers)
    return load if load.wait_ms and sensible else None
