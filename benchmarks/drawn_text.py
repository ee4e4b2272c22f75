"""Pages of text whose words are known: drawn, warped, noisy, and the same whenever a seed is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from splitpoint.codec import Array

SIZE_PX = (480, 640)  # height, width
WARP_PX, BLUR_PX, NOISE = 14, (0.4, 1.0), (4, 14)
WORDS = (
    "open closed total river garden seven market bridge north paper window station winter coffee "
    "yellow machine summer ticket ground number travel kitchen forest silver carbon engine island "
    "orange planet school thunder valley branch circle doctor eleven flower guitar harbour insect"
)


@dataclass(frozen=True)
class Line:
    """What is written, and the smallest box around it: x0, y0, x1, y1 in pixels."""

    text: str
    box: tuple[float, float, float, float]


def drawn_page(seed: int) -> tuple[Array, list[Line]]:
    """A picture, uint8 `[height, width, 3]`, and its lines."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_PX
    dark = bool(rng.integers(2))
    paper = rng.integers(20, 90, 3) if dark else rng.integers(150, 245, 3)
    page = Image.new("RGB", (width, height), tuple(paper.tolist()))
    draw, lines, y = ImageDraw.Draw(page), list[Line](), int(rng.integers(20, 50))
    while True:
        size = int(rng.integers(15, 36))
        if y + 2 * size > height - 20:
            break
        font, text = ImageFont.load_default(size), _text(rng)
        x = int(rng.integers(20, 120))
        box = draw.textbbox((x, y), text, font=font)
        if box[2] < width - 20:
            ink = rng.integers(170, 256, 3) if dark else rng.integers(0, 90, 3)
            draw.text((x, y), text, tuple(ink.tolist()), font=font)
            lines.append(Line(text, box))
            y += int(size * rng.uniform(1.5, 2.6))
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    moved = corners + rng.uniform(-WARP_PX, WARP_PX, corners.shape)
    # Pillow asks where each pixel of the result comes from.
    backward = _perspective(moved, corners)
    page = page.transform(
        (width, height), Image.Transform.PERSPECTIVE, backward.ravel()[:8].tolist(),
        Image.Resampling.BICUBIC, fillcolor=tuple(paper.tolist()),
    ).filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_PX)))  # fmt: skip
    light = np.linspace(rng.uniform(0.75, 1), rng.uniform(0.75, 1), width)[None, :, None]
    pixels = np.asarray(page) * light + rng.normal(0, rng.uniform(*NOISE), (height, width, 3))
    forward = np.linalg.inv(backward)
    warped = [Line(line.text, _around(forward, line.box)) for line in lines]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), warped


def _text(rng: np.random.Generator) -> str:
    words = [str(word) for word in rng.choice(WORDS.split(), int(rng.integers(1, 5)))]
    if rng.integers(2):
        words.insert(int(rng.integers(len(words) + 1)), str(rng.integers(10, 100_000)))
    return str(rng.choice([" ".join(words), " ".join(words).title(), " ".join(words).upper()]))


def _perspective(points: Array, images: Array) -> Array:
    """The `[3, 3]` matrix that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, images, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    found = np.linalg.solve(np.array(rows), np.array(values))
    return np.append(found, 1).reshape(3, 3)


def _around(forward: Array, box: tuple[float, float, float, float]) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    corners = forward @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])
    x, y = corners[:2] / corners[2]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
