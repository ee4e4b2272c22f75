"""What a model's answer is: what its outputs say, and what its user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitpoint.codec import TensorSpec

from ..errors import CaptureError
from ..tasks.task import Task

CLASSIFY, RAW_TASK = Task(kind="classify"), Task(kind="raw")


def holds_classes(outputs: Mapping[str, str], tensors: Sequence[TensorSpec]) -> bool:
    """Whether the first output can be logits: floats `[batch, classes]`, of two classes or more.

    `outputs` maps names to `tensors` of the last boundary.
    """
    first = next((spec for spec in tensors if spec.name == next(iter(outputs.values()), "")), None)
    return (
        first is not None
        and first.dtype.startswith("float")
        and first.batch_dim == 0
        and len(first.shape_without_batch) == 1
        and first.shape[1] > 1
    )


def task_of(
    said: Task | None,
    outputs: Mapping[str, str],
    tensors: Sequence[TensorSpec],
    *,
    takes_photos: bool,
) -> Task:
    """What the user `said`; else a model of photos whose only output can be logits is a classifier.

    Raises `CaptureError` where the user says so of a model whose first output cannot be logits.
    """
    possible = holds_classes(outputs, tensors)
    if said is None:
        return CLASSIFY if takes_photos and possible and len(outputs) == 1 else RAW_TASK
    if said.kind == CLASSIFY.kind and not possible:
        shapes = {spec.name: list(spec.shape_without_batch) for spec in tensors}
        raise CaptureError(
            "a classifier's first output is [batch, classes], and this model gives "
            + ", ".join(f"{name!r} [batch, {_text(shapes[t])}]" for name, t in outputs.items()),
            "leave the task out, or return the logits first",
        )
    return said


def check_labels(labels: Sequence[str], classes: int | None) -> None:
    """Raises `CaptureError` unless there are as many `labels` as `classes`, or none."""
    if labels and classes is not None and len(labels) != classes:
        raise CaptureError(
            f"the model tells {classes} class{'es' if classes != 1 else ''}, "
            f"and {len(labels)} labels came with it",
            "give a label for each class, in their order",
        )


def _text(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
