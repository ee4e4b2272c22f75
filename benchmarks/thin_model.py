"""A picture model of next to no compute, whose inner boundary is 60 kB and can be calibrated."""

from __future__ import annotations

import torch
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput

THIN = "thin_model:thin"
SIDE_PX, PATCH_PX, CHANNELS, CLASSES = 200, 8, 24, 10
# Random weights hardly tell photos apart, and levels of the transform codec aim at a loss.
SCORES = 10.0


class Thin(torch.nn.Module):
    """A number for each of 24 filters and 8 x 8 pixels, and scores that depend on every one."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, CHANNELS, PATCH_PX, PATCH_PX)
        self.head = torch.nn.Conv2d(CHANNELS, CLASSES, SIDE_PX // PATCH_PX)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.patches(x))).flatten(1)


def thin() -> ModelSpec:
    """With seeded random weights, as `splitpoint compile thin_model:thin`."""
    torch.manual_seed(0)
    net = Thin().eval()
    with torch.no_grad():
        net.head.weight.mul_(SCORES)
    picture = PictureInput(resize_px=224, height_px=SIDE_PX, width_px=SIDE_PX)
    return ModelSpec.of_picture_model(
        THIN, net, picture, mean=(0.45,) * 3, std=(0.25,) * 3, weights="random"
    )
