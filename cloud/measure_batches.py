"""What batches cost on this device, measured before the first one is asked for."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from splitpoint.partition.bundle import Bundle
from splitpoint.partition.samples import synthetic_samples

from .batch_times import BatchTimes
from .memory import is_out_of_memory
from .runner import Runner

ROUNDS = 3
# Larger sizes are left out, and cost what samples cost here, when a round takes longer; and sooner
# when samples cost no less than in the size before.
LONGEST_ROUND_S, LONG_ROUND_S, LESS = 0.5, 0.1, 0.97


def measure_batches(
    bundle: Bundle,
    runner: Runner,
    max_batch: int,
    progress: Callable[[int], None] = lambda size: None,
) -> BatchTimes:
    """The median times of every segment for 1, 2, 4 … samples, up to `max_batch`.

    A size for which the device has no memory ends the row, and is the limit of what is planned.
    """
    values = synthetic_samples(bundle.manifest).inputs[0]
    found: list[dict[int, float]] = [{} for _ in bundle.manifest.segments]
    size, before_s = 1, math.inf
    while size <= max_batch:
        progress(size)
        try:
            times = [_round(runner, len(found), values, size) for _ in range(1 + ROUNDS)]
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            max_batch = size // 2
            break
        for segment, ms in enumerate(zip(*times[1:], strict=True)):
            found[segment][size] = statistics.median(ms)
        round_s = 1e-3 * statistics.median(map(sum, times[1:]))
        longest_s = LONGEST_ROUND_S if round_s / size < LESS * before_s else LONG_ROUND_S
        if round_s > longest_s:
            break
        before_s = round_s / size
        size *= 2
    return BatchTimes(found, max_batch, padded=bool(runner.sizes))


def _round(runner: Runner, segments: int, values: object, size: int) -> list[float]:
    """Milliseconds of each segment, once."""
    state = runner.enter(0, [values] * size)  # type: ignore[list-item]
    times = []
    for segment in range(segments):
        start = time.perf_counter()
        state = runner.step(segment, state, size)
        runner.chain.wait()
        times.append(1e3 * (time.perf_counter() - start))
    return times
