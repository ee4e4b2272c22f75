"""What batches cost on this device, measured before the first one is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples

from ..gpu.device_errors import is_out_of_memory
from ..schedule.batch_times import BatchTimes
from .cpu_wait import cpu_wait_s
from .runner import Runner

ROUNDS = 3
LONGEST_ROUND_S = 0.3  # a size that takes longer is the largest that is measured
# Of a sample's time, the least that it saves in a batch with others: what a step costs beside its
# kernels is paid once. Alone on a device it can hardly be measured; in a worker whose cores also
# receive and decode for 32 clients, batches of 16 passed 1.1 to 1.3 times the frames of one by one.
SAVED = 0.03
# A measurement was disturbed whose rounds differ more, or in which so large a share of the time was
# spent waiting for a core.
STEADY, MOST_WAITED = 1.3, 0.05
WORSE = 1.15  # batches in which samples cost so much more than at best are not formed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What batches of up to `limit` samples cost.

    `rows` are the milliseconds to plan with, by batch size, for each segment, and `padded` is as in
    `BatchTimes`. `round_s` are the seconds from the input to the end, by batch size, as they were
    measured. `steady` says that nothing else took the device's time meanwhile, as far as can be
    seen.
    """

    rows: Sequence[Mapping[int, float]]
    limit: int
    padded: bool
    round_s: Mapping[int, float]
    steady: bool

    @property
    def times(self) -> BatchTimes:
        """For the schedule."""
        return BatchTimes(self.rows, self.limit, padded=self.padded)


def measure_batches(
    bundle: Bundle,
    runner: Runner,
    max_batch: int,
    progress: Callable[[int], None] = lambda size: None,
) -> Measured:
    """The times of every segment for 1, 2, 4 … samples, and for `max_batch`.

    A size for which the device has no memory is beyond the limit of what is planned, and so is one
    that makes samples dearer, but for what is seen on a machine that is busy with something else:
    there any size may look dearer. Sizes that take too long to measure cost what samples cost
    before.
    """
    values = synthetic_samples(bundle.manifest).inputs[0]
    form = AnswerForm.of(bundle.manifest)

    def run(size: int) -> list[float]:
        return segments_ms(runner, form, values, size)

    sizes: list[int] = []
    for size in batch_sizes(max_batch):
        progress(size)
        try:
            run(size)
            warm_s = sum(run(size)) / 1e3
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            max_batch = sizes[-1]
            break
        sizes.append(size)
        if warm_s > LONGEST_ROUND_S:
            break
    # In turn, and each round by its own speed: a processor's changes from second to second.
    began_s, waited_before_s = time.perf_counter(), cpu_wait_s()
    rounds = [np.array([run(size) for size in sizes]) for _ in range(ROUNDS)]
    waited = (cpu_wait_s() - waited_before_s) / (time.perf_counter() - began_s)
    speed = np.array([found.sum() for found in rounds])
    steady = bool(speed.max() <= STEADY * speed.min()) and waited <= MOST_WAITED
    ms = np.median([found / own for found, own in zip(rounds, speed, strict=True)], axis=0)
    ms *= float(np.median(speed))
    round_s = dict(zip(sizes, (ms.sum(axis=1) / 1e3).tolist(), strict=True))
    limit = _worthwhile(round_s, max_batch) if steady else max_batch
    rows = [_planned(dict(zip(sizes, row, strict=True)), limit) for row in ms.T.tolist()]
    return Measured(
        rows=rows,
        limit=limit,
        padded=bool(runner.sizes),
        round_s=round_s,
        steady=steady,
    )


def batch_sizes(max_batch: int) -> list[int]:
    """Those that are measured: on a GPU they are also those that are captured."""
    powers = [1 << power for power in range(max_batch.bit_length())]
    return sorted({*powers, max_batch})


def expected_s(alone_s: float, max_batch: int) -> float:
    """About how long `measure_batches` takes where one sample takes `alone_s`."""
    sizes = []
    for size in batch_sizes(max_batch):
        sizes.append(size)
        if size * alone_s > LONGEST_ROUND_S:
            break
    return (2 + ROUNDS) * alone_s * sum(sizes)


def run_once(bundle: Bundle, runner: Runner, limit: int) -> None:
    """Has everything run that batches of up to `limit` samples need, so that no frame is the first.

    That is one sample, and each size for which the runner keeps something ready.
    """
    values = synthetic_samples(bundle.manifest).inputs[0]
    form = AnswerForm.of(bundle.manifest)
    for size in runner.sizes or (1,):
        segments_ms(runner, form, values, size)
        if size >= limit:
            break


def _worthwhile(round_s: Mapping[int, float], max_batch: int) -> int:
    """The most samples that a batch may have."""
    each = {size: seconds / size for size, seconds in round_s.items()}
    good = [size for size in each if each[size] <= WORSE * min(each.values())]
    return max_batch if max(good) == max(each) else max(good)


def _planned(ms: Mapping[int, float], max_batch: int) -> dict[int, float]:
    """Milliseconds of a segment by batch size, where each size saves something over the last."""
    found = {1: ms[1]}
    before = 1
    while before < max_batch:
        size = min(2 * before, max_batch)
        most = found[before] * (1 + (1 - SAVED) * (size - before) / before)
        found[size] = min(ms.get(size, most), most)
        before = size
    return found


def segments_ms(runner: Runner, form: AnswerForm, values: object, size: int) -> list[float]:
    """Milliseconds of each segment, once; the last with the head, for each sample by itself."""
    state = runner.enter(0, [values] * size)  # type: ignore[list-item]
    times = []
    for segment in range(len(runner.chain)):
        start = time.perf_counter()
        state = runner.step(segment, state, size)
        runner.chain.wait()
        times.append(1e3 * (time.perf_counter() - start))
    if form.head is not None:
        start = time.perf_counter()
        for outputs in runner.answers(state, [1] * size):
            form.made(outputs)
        times[-1] += 1e3 * (time.perf_counter() - start)
    return times
