"""A model whose segments count, wait, fail, run out of memory or hang as a test asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from patience import until
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.codec import RAW, Array, TensorSpec
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError


class SlowChain:
    """Segment i maps v to 2v + i. Each run is noted in `runs` as (segment, samples)."""

    runtime, threads, device = "numpy", 1, "cpu"

    def __init__(self, segments: int, ms: float) -> None:
        self._segments, self._ms = segments, ms
        self.runs: list[tuple[int, int]] = []
        self.poison: float | None = None  # a value that makes a segment raise
        self.room = 10**9  # samples that fit into memory
        self.hangs = threading.Event()  # set: the next step waits until it is cleared
        self.on_step: Callable[[int], None] = lambda segment: None

    def __len__(self) -> int:
        return self._segments

    def load(self, index: int) -> None:
        pass

    def place(self, values: Mapping[str, Array]) -> dict[str, Any]:
        return dict(values)

    def step(self, index: int, state: Mapping[str, Any]) -> dict[str, Any]:
        value = state[f"t{index}"]
        self.on_step(index)
        while self.hangs.is_set():
            time.sleep(0.01)
        time.sleep(self._ms / 1e3)
        if len(value) > self.room:
            raise RuntimeError("CUDA error: out of memory")
        if self.poison is not None and (value == self.poison).any():
            raise ValueError("a poisoned value")
        self.runs.append((index, len(value)))
        return {f"t{index + 1}": 2 * value + index}

    def fetch(self, value: Array) -> Array:
        return value

    def join(self, values: Sequence[Array], dim: int) -> Array:
        return np.concatenate(values, dim)

    def part(self, value: Array, dim: int, first: int, count: int) -> Array:
        return value[first : first + count]

    def wait(self) -> None:
        pass


class SlowModel:
    """What an engine needs of a served model; a batch takes as long as a single sample."""

    def __init__(self, segments: int = 3, ms: float = 10.0, max_batch: int = 64) -> None:
        self.boundaries = [
            [TensorSpec(name=f"t{i}", dtype="float32", shape=(1, 4), batch_dim=0)]
            for i in range(segments + 1)
        ]
        self.chain = SlowChain(segments, ms)
        self.runner = Runner(self.chain, self.boundaries)
        last = tuple(self.boundaries[-1])
        self.form = AnswerForm(specs=last, codec=RAW, outputs={}, head=None)
        self.batch_times = BatchTimes([{1: ms, max_batch: ms}] * segments, max_batch)
        self.times = CloudTimes(segment_ms=(ms,) * segments)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(name="slow", stand_ins={}))

    def expected(self, boundary: int, value: Any) -> Any:
        """What the model makes of a value at `boundary`."""
        for segment in range(boundary, len(self.chain)):
            value = 2 * value + segment
        return value

    def request(
        self, boundary: int, answers: list[object], value: float = 1.0, **over: object
    ) -> Request:
        """One sample filled with `value`; its result is appended to `answers`."""
        samples = int(over.pop("samples", 1))  # type: ignore[call-overload]
        values = {f"t{boundary}": np.full((samples, 4), value, np.float32)}
        fields = {
            "model": self, "boundary": boundary, "samples": samples, "values": values,
            "deadline_s": float("inf"), "client": "someone", "broke": lambda: None,
            "answer": lambda request, result: answers.append(result),
        }  # fmt: skip
        return Request(**(fields | over))  # type: ignore[arg-type]


async def answered(answers: list[object], count: int) -> None:
    """Returns once there are so many."""
    await until(lambda: len(answers) >= count, f"{count} answers")


def status(answer: object) -> int:
    """As a reply says it."""
    return answer.status if isinstance(answer, FrameError) else pb.OK


async def computes(engine: Engine, model: SlowModel) -> bool:
    """Whether a frame is answered with what it should be."""
    answers: list[object] = []
    engine.submit(model.request(0, answers, 3.0))
    await until(lambda: answers)
    expected = model.expected(0, np.full((1, 4), 3.0, np.float32))
    return isinstance(answers[0], dict) and (answers[0][f"t{len(model.chain)}"] == expected).all()
