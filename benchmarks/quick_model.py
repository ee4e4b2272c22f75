"""The model of `--quick`: compiled in seconds. Its figures only show that a script works."""

from __future__ import annotations

import torch
from quick_bundle import QUICK
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput

SIDE_PX, CLASSES = 224, 100
SCORES = 6.0  # random weights would hardly tell two photos apart


class Small(torch.nn.Module):
    """Five convolutions, one of them beside a shortcut, and a head."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 8), (8, 16), (16, 32), (32, 48))
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(*size, 3, stride=2, padding=1) for size in sizes
        )
        self.last = torch.nn.Conv2d(48, 48, 3, padding=1)
        self.head = torch.nn.Linear(48, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = torch.relu(conv(x))
        x = x + torch.relu(self.last(x))
        return SCORES * self.head(x.mean((2, 3)))


def small() -> ModelSpec:
    """With seeded random weights of even scale, as `splitpoint compile quick_model:small`."""
    torch.manual_seed(0)
    net = Small().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
    picture = PictureInput(resize_px=256, height_px=SIDE_PX, width_px=SIDE_PX)
    return ModelSpec.of_picture_model(
        QUICK, net, picture, mean=(0.45,) * 3, std=(0.25,) * 3, weights="random"
    )
