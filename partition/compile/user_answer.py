"""In which tensors a user's head answers: seen by calling it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from splitpoint.codec import TensorSpec

from ..model_spec import ModelSpec
from ..tasks.task import Task
from ..tasks.user_head import answer_specs, check_samples, is_user_head
from .verify import example_batch, tensors_in_order


def with_answer(task: Task, spec: ModelSpec, outputs: Mapping[str, TensorSpec]) -> Task:
    """The task with the tensors that its function gives for the first sample of the example.

    `outputs` are all of the model's. A task without a user's function is returned as it is. Raises
    `TaskError` for a function that fails, or returns something else.
    """
    if not is_user_head(task.head):
        return task
    chosen = task.chosen(outputs)
    check_samples(task.head, chosen)
    args, kwargs = example_batch(spec, [0])
    with torch.inference_mode():
        found = tensors_in_order(spec.module(*args, **kwargs))
    arrays = {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}
    sample = {name: arrays[name][0] for name in chosen}
    return replace(task, answer=answer_specs(task.head, task.kind, sample, task.limits))
