"""What `compile` needs to know of a model beside its module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .picture import PictureInput
from .tasks.task import Task

CHANNEL_ORDERS = ("rgb", "bgr")
# Of the pixels of ImageNet, from 0 to 1, as most models of photos are trained.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A torch module with example inputs.

    `args` and `kwargs` hold tensors with the batch as dimension 0; one sample is enough. A module
    that cannot take a batch is marked as `one_sample`: its example is a single one, of any shapes.
    `picture` is set for models that take photos; they are captured from uint8 pixels on.
    `task` says what the outputs are, and `labels` names the classes. None leaves it to the model:
    one that takes photos and has no output but floats `[batch, classes]` is a classifier, any
    other one gives its outputs as they are. `remarks` are what the
    model's user should know, a line each.
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
    one_sample: bool = False
    remarks: Sequence[str] = ()

    @property
    def users_module(self) -> torch.nn.Module:
        """The module that the user knows, without what is put around it here."""
        module = self.module
        while isinstance(module, Around):
            module = module.model
        return module

    @classmethod
    def of_picture_model(
        cls,
        source: str,
        model: torch.nn.Module,
        picture: PictureInput,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float = 1 / 255,
        order: str = "rgb",
        channels_last: bool = False,
        task: Task | None = None,
        labels: Sequence[str] = (),
        weights: str = "as built",
    ) -> ModelSpec:
        """A model of normalised `[batch, 3, height, width]`, captured from its pixels on.

        `mean` and `std` are per channel, of pixel values times `scale`: 0..1 as it stands. The
        channels come in `order`, "rgb" or "bgr", and last where the model wants them there.
        """
        noise = torch.Generator().manual_seed(0)
        shape = picture.spec.shape_at(3)
        return cls(
            source=source,
            module=FromPixels(
                Normalise(mean, std, scale=scale, order=order, channels_last=channels_last), model
            ),
            args=(torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise),),
            picture=picture,
            task=task,
            labels=labels,
            weights=weights,
            layer_prefix="model." * (2 if isinstance(model, Around) else 1),
        )


class Normalise(torch.nn.Module):
    """uint8 `[batch, height, width, 3]`, RGB, to normalised float32 `[batch, 3, height, width]`.

    Or as the model wants it: see `ModelSpec.of_picture_model`.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        scale: float = 1 / 255,
        order: str = "rgb",
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        deviation = torch.tensor(std, dtype=torch.float64)
        shape = (3,) if channels_last else (3, 1, 1)
        shift = -torch.tensor(mean, dtype=torch.float64) / deviation
        self.register_buffer("scale", (scale / deviation).float().reshape(shape))
        self.register_buffer("shift", shift.float().reshape(shape))
        self.turned, self.channels_last = order == "bgr", channels_last

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The model's input."""
        pixels = pixels.flip(-1) if self.turned else pixels
        pixels = pixels if self.channels_last else pixels.permute(0, 3, 1, 2)
        return pixels.float() * self.scale + self.shift


class Around(torch.nn.Module):
    """A module with something of ours before or behind it; in the end, `model` is the user's."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


class FromPixels(Around):
    """A picture model with its normalisation as the first layer."""

    def __init__(self, normalise: Normalise, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.normalise = normalise

    def forward(self, pixels: torch.Tensor) -> Any:
        """What the model returns for these pixels."""
        return self.model(self.normalise(pixels))
