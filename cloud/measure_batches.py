"""What batches cost on this device, measured before the first one is asked for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from splitpoint.partition.bundle import Bundle
from splitpoint.partition.samples import synthetic_samples

from .batch_times import BatchTimes
from .memory import is_out_of_memory
from .runner import Runner

ROUNDS = 3
# Larger sizes are left out when one round of them takes longer; they cost what samples cost there.
LONGEST_ROUND_S = 0.5


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
    size = 1
    while size <= max_batch:
        progress(size)
        began_s = time.perf_counter()
        try:
            times = [_round(runner, len(found), values, size) for _ in range(1 + ROUNDS)]
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            max_batch = size // 2
            break
        for segment, ms in enumerate(zip(*times[1:], strict=True)):
            found[segment][size] = statistics.median(ms)
        if time.perf_counter() - began_s > LONGEST_ROUND_S * (1 + ROUNDS):
            break
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
