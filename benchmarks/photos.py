"""Photos for benchmarks that were given none: crops of those that scikit-image brings along."""

from __future__ import annotations

from pathlib import Path


def own_photos(folder: Path, which: int) -> str:
    """Every other of 20 crops, from the first (0) or the second (1), as files; the folder."""
    import skimage.data
    from PIL import Image

    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket", "cat"):
        photo = Image.fromarray(getattr(skimage.data, name)())
        width, height = photo.width // 2, photo.height // 2
        for number in range(which, 4, 2):
            left, top = number % 2 * width, number // 2 * height
            crop = photo.crop((left, top, left + width, top + height))
            crop.save(folder / f"{name}{number}.png")
    return str(folder)
