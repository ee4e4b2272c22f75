"""A model that is to be split, and what its own framework answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from splitpoint.codec import Array
from splitpoint.partition.compile.verify import example_batch, tensors_in_order
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.known_modules import known_module

Truth = Callable[[ModelSpec, Sequence[int]], list[Array]]
"""What the framework answers to these samples of the spec's example."""


def module_s_own(spec: ModelSpec, samples: Sequence[int]) -> list[Array]:
    """The outputs of the module as its library runs it."""
    args, kwargs = example_batch(spec, samples)
    with torch.inference_mode():
        return [tensor.numpy() for tensor in tensors_in_order(spec.module(*args, **kwargs))]


@dataclass(frozen=True)
class Given:
    """What is compiled, and what is right."""

    spec: ModelSpec
    truth: Truth = module_s_own


@dataclass(frozen=True)
class Subject:
    """A row of the table: `make` builds the model, with a folder for files.

    `refused` is what the message must say where the model cannot be split; empty: it must be equal.
    """

    name: str
    make: Callable[[Path], Given]
    refused: str = ""
    quick: bool = False


def installed(library: str) -> str | None:
    """The library's version, None where it is not there."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def given(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Given:
    """A module with its example inputs."""
    spec = ModelSpec(source="zoo", module=module.eval(), args=args, kwargs=kwargs)
    settle_batch_norms(spec)
    return Given(spec)


def pixels(side_px: int, samples: int = 3) -> torch.Tensor:
    """Normalised photos, as far as random ones are any."""
    return torch.randn(samples, 3, side_px, side_px)


def known(module: torch.nn.Module, side_px: int) -> Given:
    """A module that says by itself what it takes and answers, on pictures of another size."""
    spec = known_module("zoo", module.eval(), size_px=(side_px, side_px))
    assert spec is not None, f"{type(module).__name__} is not known"
    settle_batch_norms(spec)
    return Given(spec)


def settle_batch_norms(spec: ModelSpec) -> None:
    """Gives random models the statistics of their own activations.

    With fresh statistics (mean 0, variance 1) the signal of a deep random network dies out, and its
    answer hardly depends on the input.
    """
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    norms = [part for part in spec.module.modules() if isinstance(part, kinds)]
    for norm in norms:
        norm.momentum = None  # a plain average over the calls
        norm.train()
    if norms:
        with torch.no_grad():
            spec.module(*spec.args, **spec.kwargs)
    for norm in norms:
        norm.eval()
