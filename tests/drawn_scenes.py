"""Pictures that differ from each other as photos do: light, colours, and detail at all scales."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

SIDE_PX = 96


def scenes(count: int, seed: int) -> list[np.ndarray]:
    """So many, uint8 `[96, 96, 3]`."""
    chance = np.random.default_rng(seed)
    return [_scene(chance) for _ in range(count)]


def _scene(chance: np.random.Generator) -> np.ndarray:
    light, contrast = chance.uniform(80, 150), chance.uniform(0.7, 1.4)
    tint = chance.normal((6, 0, -8), 12)
    found = np.full((SIDE_PX, SIDE_PX, 3), light) + tint
    found += np.linspace(30, -10, SIDE_PX)[:, None, None] * chance.uniform(0.3, 1.2)
    for cells in (3, 6, 12, 24, 48, 96):
        field = chance.normal(0, 70 * cells**-0.5, (cells, cells, 3))
        field = 0.8 * field.mean(2, keepdims=True) + 0.2 * field
        planes = [
            Image.fromarray(field[..., c].astype(np.float32)).resize((SIDE_PX, SIDE_PX), 2)
            for c in range(3)
        ]
        found += contrast * np.stack([np.asarray(plane) for plane in planes], 2)
    return np.clip(found, 0, 255).astype(np.uint8)


def pan(picture: np.ndarray) -> list[np.ndarray]:
    """What a camera shows that turns from the left to the right: 60 views, each half as wide."""
    half = SIDE_PX // 2
    return [picture[:, left : left + half] for left in np.linspace(0, half, 60).astype(int)]


def negative(picture: np.ndarray) -> np.ndarray:
    """Light is dark, and colours are their opposites."""
    return 255 - picture


def at_night(picture: np.ndarray) -> np.ndarray:
    """A twelfth of the light, and a sensor's noise."""
    noise = np.random.default_rng(int(picture.sum())).normal(0, 3, picture.shape)
    return np.clip(picture / 12 + noise, 0, 255).astype(np.uint8)


def out_of_focus(picture: np.ndarray) -> np.ndarray:
    """Blurred."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3)))
