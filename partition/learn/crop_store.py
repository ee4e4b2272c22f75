"""What crosses the boundary for thousands of crops, and the model's answers: on disk, for training.

The segments before the boundary and the decoding of pictures take as long as a step of training
does; they are done once. Tensors lie there in float16, whose error is a hundredth of the codec's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from splitpoint.codec import Array

from ..errors import LearnError
from ..kept_files import write_whole
from .frozen_model import FrozenModel
from .pictures import PictureShares, crop, pixels

MOST_CROPS, MOST_ROUNDS, MOST_BYTES = 12_000, 20, 3 << 30
STORED = "crops.json"  # written when all is there
_TOGETHER = 32
_HALF = float(np.finfo(np.float16).max)

Advance = Callable[[int, int], None]
"""Called with how many crops are there and how many there will be."""


class CropStore:
    """Of training: `tensors` float16 `[n, C, H, W]`, `answers` float32 of a classifier, or None.

    They begin with the pictures as a camera sends them; then come random parts of them.
    """

    def __init__(self, folder: Path, tensors: Array, answers: Array | None) -> None:
        self.folder, self._tensors, self._answers = folder, tensors, answers

    def __len__(self) -> int:
        """How many crops there are."""
        return len(self._tensors)

    def some(self, numbers: Sequence[int]) -> torch.Tensor:
        """Tensors of these crops, float32."""
        return torch.from_numpy(self._tensors[list(numbers)].astype(np.float32))

    def answers(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """A classifier's exact logits for them; None for any other model."""
        return None if self._answers is None else torch.from_numpy(self._answers[list(numbers)])

    @classmethod
    def opened(
        cls, folder: Path, model: FrozenModel, pictures: PictureShares, seed: int, advance: Advance
    ) -> CropStore:
        """What lies in `folder`, made now where it is not all there, or is of something else."""
        shape, classes = model.spec.shape[1:], _classes(model)
        each = 2 * math.prod(shape) + 4 * (classes or 0)
        files = pictures.training
        count = min(MOST_CROPS, MOST_ROUNDS * len(files), MOST_BYTES // each)
        made_of = _made_of(model, files, seed, count)
        done, names = folder / STORED, [folder / "tensors.npy", folder / "answers.npy"]
        if not done.is_file() or done.read_bytes() != made_of.encode():
            done.unlink(missing_ok=True)
            _make(names, model, files, seed, count, advance)
            write_whole(done, made_of)
        opened = [np.load(name, mmap_mode="r") for name in names[: 2 if classes else 1]]
        return cls(folder, opened[0], opened[1] if classes else None)


def _classes(model: FrozenModel) -> int | None:
    if not model.manifest.classifies:
        return None
    name = next(iter(model.manifest.outputs.values()))
    spec = next(s for s in model.manifest.boundaries[-1].tensors if s.name == name)
    return spec.shape[-1]


def _made_of(model: FrozenModel, files: Sequence[Path], seed: int, count: int) -> str:
    """All that the content hangs on, as far as names and sizes of files tell."""
    seen = hashlib.sha256()
    for path in files:
        seen.update(f"{path.resolve()} {path.stat().st_size}\n".encode())
    return json.dumps({
        "digest": model.manifest.digest, "boundary": model.boundary, "seed": seed,
        "crops": count, "files": seen.hexdigest(),
    })  # fmt: skip


def _make(
    names: Sequence[Path],
    model: FrozenModel,
    files: Sequence[Path],
    seed: int,
    count: int,
    advance: Advance,
) -> None:
    shape, classes = (count, *model.spec.shape[1:]), _classes(model)
    tensors = _array_on_disk(names[0], np.float16, shape)
    answers = None
    if classes:
        answers = _array_on_disk(names[1], np.float32, (count, classes))
    picture = model.manifest.picture
    assert picture is not None
    (name,) = (spec.name for spec in model.manifest.boundaries[0].tensors)
    order = [
        number
        for again in range(-(-count // len(files)))
        for number in np.random.default_rng((seed, again)).permutation(len(files))
    ]
    for start in range(0, count, _TOGETHER):
        numbers = range(start, min(start + _TOGETHER, count))
        given = [
            pixels(picture, files[order[i]])
            if i < len(files)
            else crop(picture, files[order[i]], np.random.default_rng((seed, i, 1)))
            for i in numbers
        ]
        crossing = model.before({name: np.stack(given)})
        values = crossing.cpu().numpy()
        if not np.isfinite(values).all() or np.abs(values).max() > _HALF:
            raise LearnError(
                f"what crosses boundary {model.boundary} is not finite, or beyond 65504",
                "choose another boundary with --at",
            )
        tensors[start : start + len(values)] = values
        if answers is not None:
            with torch.no_grad():
                (logits,) = (model.after(crossing)[n] for n in [_first_output(model)])
            answers[start : start + len(values)] = logits.cpu().numpy()
        advance(start + len(values), count)
    tensors.flush()
    if answers is not None:
        answers.flush()


def _array_on_disk(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Raises `OSError` where there is no room: writing to a map of what is not there is fatal."""
    found = np.lib.format.open_memmap(str(path), "w+", dtype, shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return found


def _first_output(model: FrozenModel) -> str:
    return next(iter(model.manifest.outputs.values()))
