"""What a caller gives the agent: frames with inputs, checked before anything runs."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitpoint.codec import Array, SpecError, SplitpointError, TensorSpec
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One frame for `EdgeAgent.stream`: its inputs, or why there are none, and the caller's note.

    `inputs` are the tensors of boundary 0 by name, with a batch dimension. One that is `still` has
    none: it shows what an earlier one has shown, and nothing is computed. `traceparent` is the
    span (W3C Trace Context) that the worker's spans of this frame belong to, "" for none.
    """

    inputs: Inputs = field(default_factory=dict)
    error: SplitpointError | None = None
    still: bool = False
    metadata: Any = None
    traceparent: str = ""


def batch_of(inputs: Inputs, specs: Sequence[TensorSpec]) -> int:
    """How many samples `inputs` hold; `SpecError` where they are not the tensors of `specs`."""
    missing = [spec.name for spec in specs if spec.name not in inputs]
    if missing:
        raise SpecError(
            f"the input {missing[0]!r} is missing",
            f"the model takes {', '.join(spec.name for spec in specs)}",
        )
    batches = {spec.check(inputs[spec.name]) for spec in specs}
    if len(batches) != 1:
        raise SpecError(f"the inputs have different batch sizes {sorted(batches)}")
    batch = batches.pop()
    if batch > MAX_BATCH_PER_FRAME:
        raise SpecError(
            f"a batch of {batch} in one frame", f"send at most {MAX_BATCH_PER_FRAME} at a time"
        )
    return batch


async def each(frames: AsyncIterable[Given] | Iterable[Given]) -> AsyncIterator[Given]:
    """Frames from either kind of iterable."""
    if isinstance(frames, AsyncIterable):
        async for given in frames:
            yield given
    else:
        for given in frames:
            yield given
