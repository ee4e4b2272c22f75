"""A detector and a segmenter that compile in seconds."""

from __future__ import annotations

import torch
from built import built
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.tasks.task import Task

SIDE, CLASSES = 64, 3


class Detector(torch.nn.Module):
    """A box for each cell of three grids, as a YOLO's: `[batch, 4 + classes, cells]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 4, 1)
        )
        self.downs = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(8, 4 + CLASSES, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        found = []
        for head, down in zip(self.heads, [*self.downs, torch.nn.Identity()], strict=True):
            y = head(x).flatten(2)
            found.append(torch.cat([y[:, :4].sigmoid() * SIDE, (4 * y[:, 4:]).sigmoid()], 1))
            x = down(torch.relu(x))
        return torch.cat(found, 2)


class Segmenter(torch.nn.Module):
    """A map of logits at a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3, 2, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


def spec_of(head: str) -> ModelSpec:
    """That of the head `yolo` or `segment`."""
    torch.manual_seed(0)
    module = Detector() if head == "yolo" else Segmenter()
    picture = PictureInput(resize="letterbox", height_px=SIDE, width_px=SIDE)
    return ModelSpec.of_picture_model(
        head, module.eval(), picture, mean=(0.4,) * 3, std=(0.2,) * 3,
        task=Task.of_head(head, max_detections=20) if head == "yolo" else Task.of_head(head),
        labels=tuple("abcde"[: CLASSES if head == "yolo" else 5]),
    )  # fmt: skip


def task_bundle(head: str) -> Bundle:
    """Compiled."""
    spec = spec_of(head)
    return built(head, lambda path: compile_model(spec, path, boundaries=4), __file__)
