"""A detector of `--quick`: random weights, and pictures in which it finds something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.tasks.task import Task

SIDE_PX, CLASSES = 64, 2


class Small(torch.nn.Module):
    """A box for each cell of the three grids of a YOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 9, 8, 4)
        self.downs = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, 2, 1) for _ in range(3))
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(8, 4 + CLASSES, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, found = torch.relu(self.stem(x)), []
        for head, down in zip(self.heads, self.downs, strict=True):
            y = head(x).flatten(2)
            found.append(torch.cat([y[:, :4].sigmoid() * SIDE_PX, (6 * y[:, 4:]).sigmoid()], 1))
            x = torch.relu(down(x))
        return torch.cat(found, 2)


def small_detector() -> ModelSpec:
    torch.manual_seed(0)
    picture = PictureInput(resize="letterbox", height_px=SIDE_PX, width_px=SIDE_PX)
    return ModelSpec.of_picture_model(
        "quick", Small().eval(), picture, mean=(0.4,) * 3, std=(0.2,) * 3,
        task=Task.of_head("yolo"), weights="random",
    )  # fmt: skip


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (48, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    return folder
