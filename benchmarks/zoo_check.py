"""What becomes of one model: equal, or refused in one line; anything else is a fault."""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from splitpoint.cloud.worker import Worker
from splitpoint.codec import SplitpointError
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.model_kind import RAW_TASK
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.verify import example_batch, flat_tensors
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from zoo_subject import Given, Subject

TOLERANCE = 1e-4  # of the largest magnitude of an output
ALIVE = 1e-3  # less than this between two inputs, and equality says little
MOST_S = 300
BOUNDARIES = 4  # beside them, all on the device


@dataclass(frozen=True, kw_only=True)
class Found:
    """`verdict` is equal or refused; in capitals, what must not be.

    When the boundaries were chosen, `compile` said that `foreseen_s` were left, and `left_s` were.
    """

    verdict: str
    said: str = ""
    layers: int = 0
    boundaries: int = 0
    compile_s: float = 0.0
    foreseen_s: float = 0.0
    left_s: float = 0.0
    error: float = 0.0
    differ: float = 0.0

    @property
    def is_right(self) -> bool:
        return self.verdict in ("equal", "refused")


def check(subject: Subject) -> Found:
    """Builds, compiles, serves and runs it."""
    with tempfile.TemporaryDirectory() as folder, _limit(MOST_S):
        start_s = time.perf_counter()
        try:
            torch.manual_seed(0)
            given = subject.make(Path(folder))
            start_s = time.perf_counter()
            told: list[tuple[float, float]] = []  # when it was foreseen, and what
            bundle = compile_model(
                replace(given.spec, task=RAW_TASK),  # all outputs are compared, before any head
                Path(folder) / "model.split",
                boundaries=BOUNDARIES,
                foresee=lambda forecast: told.append((time.perf_counter(), forecast.seconds)),
            )
            ((foreseen_at_s, foreseen_s),) = told
            left_s = time.perf_counter() - foreseen_at_s
            _open_head(given.spec, bundle)
            compile_s = time.perf_counter() - start_s
        except SplitpointError as error:
            return _refused(subject, str(error))
        except TimeoutError:
            return Found(verdict="HANGS")
        except Exception as error:  # noqa: BLE001 - whatever a user would see
            return Found(verdict="TRACEBACK", said=f"{type(error).__name__}: {error}"[:300])
        if subject.refused:
            return Found(verdict="NOT REFUSED")
        try:
            error = asyncio.run(worst_error(bundle, given, Path(folder) / "cache"))
        except TimeoutError:
            return Found(verdict="HANGS")
        except (SplitpointError, AssertionError) as failure:
            return Found(verdict="FAILS", said=str(failure)[:300])
    differ = sensitivity(given)
    verdict = "equal" if error <= TOLERANCE else "WRONG"
    return Found(
        verdict=verdict if differ > ALIVE else "SAYS NOTHING",
        said="" if given.spec.task is None else given.spec.task.head or given.spec.task.kind,
        layers=len(bundle.manifest.layers),
        boundaries=len(bundle.manifest.boundaries),
        compile_s=compile_s,
        foreseen_s=foreseen_s,
        left_s=left_s,
        error=error,
        differ=differ,
    )


def _open_head(spec: ModelSpec, bundle: Bundle) -> None:
    """Raises `TaskError` where the model's own task does not fit its outputs."""
    if spec.task is None or spec.picture is None:
        return
    tensors = {tensor.name: tensor for tensor in bundle.manifest.boundaries[-1].tensors}
    outputs = {name: tensors[tensor] for name, tensor in bundle.manifest.outputs.items()}
    spec.task.open(outputs, (spec.picture.height_px, spec.picture.width_px))


def _refused(subject: Subject, said: str) -> Found:
    if not subject.refused:
        return Found(verdict="REFUSED", said=said)
    if "\n" in said or not re.search(subject.refused, said):
        return Found(verdict="REFUSED OTHERWISE", said=said)
    return Found(verdict="refused", said=said)


def sensitivity(given: Given) -> float:
    """How much the answers to two inputs differ, of the largest magnitude of an output.

    Equality to a model that answers the same to everything would prove nothing.
    """
    one, other = given.truth(given.spec, [0]), given.truth(given.spec, [1])
    return max(relative_error(a, b) for a, b in zip(one, other, strict=True))


async def worst_error(
    bundle: Bundle, given: Given, cache: Path, batches: Sequence[int] = (1, 2)
) -> float:
    """The largest relative error over all boundaries, batches and outputs."""
    worst = 0.0
    names = [spec.name for spec in bundle.manifest.boundaries[0].tensors]
    last = len(bundle.manifest.segments)
    expected = {batch: given.truth(given.spec, range(batch)) for batch in batches}
    async with Worker([bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        for split in range(last + 1):
            async with EdgeAgent(
                worker.address, split=str(split), codec="raw", cache=cache, budget_ms=60_000
            ) as agent:
                for batch, answers in expected.items():
                    tensors = flat_tensors(*example_batch(given.spec, range(batch)))
                    result = await agent.infer(
                        {name: t.numpy() for name, t in zip(names, tensors, strict=True)}
                    )
                    wanted = Outcome.LOCAL if split == last else Outcome.ANSWERED
                    assert result.outcome is wanted, f"split {split}: {result.error}"
                    pairs = zip(result.outputs.values(), answers, strict=True)
                    worst = max(worst, *(relative_error(a, b) for a, b in pairs))
    return worst


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """TimeoutError in the main thread after so long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
