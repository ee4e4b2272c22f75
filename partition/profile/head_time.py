"""What the head of a model's task takes: whoever ends a frame runs it on the outputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

from splitpoint.codec import Array

from ..bundle.answer_form import AnswerForm
from ..bundle.bundle import Bundle
from ..run.chain import SegmentChain

ROUNDS = 5


def measure_head(
    bundle: Bundle,
    chain: SegmentChain,
    inputs: Sequence[Mapping[str, Array]],
    *,
    max_seconds: float,
) -> float:
    """Median milliseconds for one sample, over `inputs`; 0 where the model has no head.

    What a head takes follows from what is in the picture. The segments are loaded; no further input
    is begun once `max_seconds` are over.
    """
    form = AnswerForm.of(bundle.manifest)
    if form.head is None:
        return 0.0
    names = [spec.name for spec in bundle.manifest.boundaries[-1].tensors]
    times: list[float] = []
    deadline, last = time.perf_counter() + max_seconds, len(chain) - 1
    for values in inputs:
        state = chain.place(values)
        for index in range(last):
            state |= chain.step(index, state)
        for _ in range(ROUNDS):
            ended = state | chain.step(last, state)  # right before it, as in use
            chain.wait()
            start = time.perf_counter()
            form.made({name: chain.fetch(ended[name]) for name in names})
            times.append(1e3 * (time.perf_counter() - start))
        if time.perf_counter() > deadline:
            break
    return statistics.median(times)
