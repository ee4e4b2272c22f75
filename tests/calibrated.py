"""Pictures and models that are small and yet have something to calibrate."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec

SCENES = 12


def scene(rng: np.random.Generator) -> np.ndarray:
    """A colour with a ramp and some noise, uint8 `[26, 26, 3]`."""
    y, x = np.mgrid[-1:1:26j, -1:1:26j]
    ramps = 60 * rng.normal(size=(2, 3))
    pixels = rng.uniform(0, 255, 3) + x[..., None] * ramps[0] + y[..., None] * ramps[1]
    return np.clip(pixels + 10 * rng.normal(size=pixels.shape), 0, 255).astype(np.uint8)


def album(folder: Path, count: int = SCENES) -> Path:
    """A folder of that many scenes, `00.png` and so on."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        Image.fromarray(scene(rng)).save(folder / f"{index:02}.png")
    return folder


def pixels_of(spec: ModelSpec, folder: Path) -> np.ndarray:
    """What the model is given of an album."""
    assert spec.picture is not None
    return np.stack([spec.picture.read(path) for path in sorted(folder.iterdir())])


def vivid(small: ModelSpec, folder: Path) -> ModelSpec:
    """The small net with a head that tells the album's pictures apart: logits deviate by 2."""
    spec = replace(small, module=copy.deepcopy(small.module))
    pixels = torch.tensor(pixels_of(spec, folder))
    head = spec.module.get_submodule("model.head")
    with torch.inference_mode():
        logits = spec.module(pixels)
    with torch.no_grad():
        scale = 2 / logits.std(0)
        head.weight.mul_(scale[:, None])
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    return spec


def calibrated_bundle(spec: ModelSpec, folder: Path, out: Path) -> Bundle:
    """Compiled with the album in `folder`, five boundaries."""
    return compile_model(spec, out, boundaries=5, calibration=Calibration(source=str(folder)))
