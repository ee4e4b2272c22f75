"""What `compile` needs to know of a model beside its module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .picture import PictureInput
from .tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A torch module with example inputs.

    `args` and `kwargs` hold tensors with the batch as dimension 0; one sample is enough.
    `picture` is set for models that take photos; they are captured from uint8 pixels on.
    `task` says what the outputs are, and `labels` names the classes. None leaves it to the model:
    one that takes photos and has no output but floats `[batch, classes]` is a classifier, any
    other one gives its outputs as they are.
    """

    source: str
    module: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    picture: PictureInput | None = None
    task: Task | None = None
    labels: Sequence[str] = ()
    weights: str = "as built"
    layer_prefix: str = ""

    @property
    def users_module(self) -> torch.nn.Module:
        """The module that the user knows, without the normalisation that is put before it."""
        return self.module.model if isinstance(self.module, FromPixels) else self.module

    @classmethod
    def of_picture_model(
        cls,
        source: str,
        model: torch.nn.Module,
        picture: PictureInput,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        task: Task | None = None,
        labels: Sequence[str] = (),
        weights: str = "as built",
    ) -> ModelSpec:
        """A model of normalised `[batch, 3, height, width]`, captured from its pixels on.

        `mean` and `std` are per channel, of pixel values scaled to 0..1.
        """
        noise = torch.Generator().manual_seed(0)
        shape = picture.spec.shape_at(3)
        return cls(
            source=source,
            module=FromPixels(Normalise(mean, std), model),
            args=(torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise),),
            picture=picture,
            task=task,
            labels=labels,
            weights=weights,
            layer_prefix="model.",
        )


class Normalise(torch.nn.Module):
    """uint8 `[batch, height, width, 3]` to normalised float32 `[batch, 3, height, width]`."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().reshape(3, 1, 1))
        self.register_buffer("shift", shift.float().reshape(3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The model's input."""
        return pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift


class FromPixels(torch.nn.Module):
    """A picture model with its normalisation as the first layer."""

    def __init__(self, normalise: Normalise, model: torch.nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.model = model

    def forward(self, pixels: torch.Tensor) -> Any:
        """What the model returns for these pixels."""
        return self.model(self.normalise(pixels))
