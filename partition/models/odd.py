"""What is odd about a module that is to be compiled, told before that takes its time."""

from __future__ import annotations

import torch

from ..model_spec import ModelSpec

_NORMS = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.GroupNorm,
    torch.nn.LayerNorm,
    torch.nn.RMSNorm,
)


def in_training_mode(source: str, module: torch.nn.Module) -> tuple[str, ...]:
    """A line about a module that was handed over in training mode; none about others."""
    if not module.training:
        return ()
    return (
        f"{source} returns the model in training mode; it is compiled as it answers in "
        "use, in eval mode (dropout off, batch norms with their running statistics)",
    )


def untrained(spec: ModelSpec) -> tuple[str, ...]:
    """A line about a model that has normalisations, and all of them as they were built.

    Training changes their factors and offsets at its first step.
    """
    norms = [part for part in spec.users_module.modules() if isinstance(part, _NORMS)]
    known = [norm for norm in norms if isinstance(norm.weight, torch.Tensor)]
    if not known or not all(map(_as_built, known)):
        return ()
    return (
        f"the weights of {spec.source} are random, as all its normalisations are as they were "
        "built: times and bytes will be right, and what codecs do to the answers will mean nothing",
    )


def _as_built(norm: torch.nn.Module) -> bool:
    """Whether all factors are equal, and all offsets 0."""
    weight, bias = norm.weight, getattr(norm, "bias", None)
    if isinstance(bias, torch.Tensor) and bool(bias.any()):
        return False
    return isinstance(weight, torch.Tensor) and bool((weight == weight.flatten()[0]).all())
