"""The example inputs of a model: what they must be, and what is made of a single sample."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch

from ..errors import CaptureError
from ..model_spec import ModelSpec


def with_usable_inputs(spec: ModelSpec) -> ModelSpec:
    """`spec` with an example batch of 2 at least.

    A batch of 1 would be taken for a constant, so that a single sample gets a second one beside it,
    unless the model takes one sample at a time.
    Raises `CaptureError` for inputs that are no batch, naming the input.
    """
    inputs = named_inputs(spec)
    tensors = {name: leaf for name, leaf in inputs.items() if isinstance(leaf, torch.Tensor)}
    if not tensors:
        raise CaptureError(
            "the model has no example inputs",
            "give them with the ModelSpec, say args=(torch.randn(2, 3, 224, 224),)",
        )
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            raise CaptureError(
                f"the input {name!r} is a tensor without dimensions",
                "give a Python number, which becomes a constant, or one value a sample",
            )
        if tensor.is_floating_point() and tensor.isnan().any():
            raise CaptureError(
                f"the example input {name!r} holds NaN, which is not equal to itself",
                "give numbers: what crosses the boundaries is compared",
            )
    if spec.one_sample:
        return spec
    extents = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(extents.values())) > 1:
        listed = ", ".join(f"{name!r} {list(tensors[name].shape)}" for name in tensors)
        raise CaptureError(
            f"the example inputs have no common batch size in dimension 0: {listed}",
            "give every input the batch there; make a buffer of what all samples share",
        )
    if set(extents.values()) != {1}:
        return spec

    def doubled(leaf: Any) -> Any:
        return torch.cat([leaf, _another(leaf)]) if isinstance(leaf, torch.Tensor) else leaf

    tree_map = torch.utils._pytree.tree_map
    return replace(
        spec, args=tree_map(doubled, spec.args), kwargs=tree_map(doubled, dict(spec.kwargs))
    )


def named_inputs(spec: ModelSpec) -> dict[str, Any]:
    """The example's values by the names that the model's forward gives them.

    Raises `CaptureError` where they do not fit its parameters.
    """
    try:
        given = inspect.signature(spec.module.forward).bind(*spec.args, **spec.kwargs).arguments
    except TypeError as error:
        raise CaptureError(
            f"the example inputs do not fit the model's forward ({error})",
            "give args and kwargs with the ModelSpec as you would call the model",
        ) from error
    leaves, _ = torch.utils._pytree.tree_flatten_with_path(dict(given))
    return {".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in p): v for p, v in leaves}


def _another(sample: torch.Tensor) -> torch.Tensor:
    """A sample that differs: only then can be seen whether a model mixes the samples of a batch.

    Its values are those of `sample` in another place, which tokens and pixels stand; where that
    changes nothing, floats are moved a little.
    """
    if sample.dtype == torch.bool or sample.ndim < 2:
        return sample
    moved = sample.roll(1, -1)
    if not sample.is_floating_point() or not sample.isfinite().all():
        return moved if sample.isfinite().all() else sample
    if not torch.equal(moved, sample):
        return moved
    noise = torch.rand(sample.shape, generator=torch.Generator().manual_seed(0))
    return sample + 0.1 * noise.to(sample.dtype)
