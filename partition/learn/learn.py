"""`learn`: a boundary gets a learned codec, from pictures without labels.

The new bundle is the old one with a few files more, and another digest. Whatever is interrupted
goes on where it was, from a folder beside the new bundle.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..bundle.boundary import Boundary
from ..bundle.bundle import Bundle, open_bundle, write_manifest
from ..errors import BundleError, LearnError
from ..kept_files import write_whole
from ..progress import Progress
from ..run.codecs import codecs_of
from .check import check_boundary
from .codec_model import CodecModel
from .crop_store import STORED, CropStore
from .frozen_model import FrozenModel, has_bfloat16
from .judged import Comparison, Judging
from .levels import levels_to_learn, octaves_between, usual_bits
from .pictures import PictureShares, check_pictures, pixels
from .trainer import Regimen, Trainer
from .write_codec import bounded, with_codec

WHITENED = 100  # crops that the whitening is fitted to, of large maps fewer
FORMAT = 1  # of what is kept for going on: another one for other networks or another training
_SHARE = 0.9  # of the hours: looks at held-back pictures and judging take the rest
_STATE, _COURSE = "training.pt", "course.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What is asked for: pictures, where, for how long. `judge` names pictures that judge.

    With `steps` it takes so many, however long; otherwise as many as fit into `hours`.
    """

    images: str
    at: int
    out: Path
    judge: str = ""
    hours: float = 2.0
    steps: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedBundle:
    """The new bundle, and what its codec was found to be worth."""

    bundle: Bundle
    boundary: int
    comparison: Comparison
    course: Regimen
    losses: tuple[float, ...]
    trained_on: int
    judged_on: int


def learn_codec(
    folder: Path, learning: Learning, device: torch.device, progress: Progress
) -> LearnedBundle:
    """Trains a codec for a boundary of the bundle in `folder` and writes the bundle that has it.

    Raises `LearnError` for a boundary or pictures that do not do, or where nothing is gained,
    `BundleError` where a bundle cannot be read or written, and `TaskError` for a head that is not
    allowed here.
    """
    bundle = open_bundle(folder)
    boundary = check_boundary(bundle.manifest, learning.at)
    if bundle.manifest.task.kind != "raw":  # what a function makes of raw outputs is not compared
        bundle.manifest.task.check_allowed()
    if learning.out.exists():
        raise BundleError(f"{learning.out} exists already", "give another --out, or remove it")
    levels = levels_to_learn(boundary, bundle.manifest.boundaries[0].level("jpeg"))
    pictures = PictureShares.of(learning.images, learning.judge)
    work = learning.out.with_name(f".{learning.out.name}.learning")
    try:
        learning.out.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700, exist_ok=True)
        # What is written there goes where its files are, which nobody else may have chosen.
        if work.is_symlink() or work.stat().st_uid != os.getuid():
            raise LearnError(f"{work} is a link, or another user's", "give another --out")
        with _alone(work):
            try:
                check_pictures(pictures, partial(progress, "looking at the pictures"))
                found = _learned(
                    bundle, boundary, levels, pictures, learning, work, device, progress
                )
            except BaseException:
                if not (work / STORED).is_file():  # there is nothing to go on from
                    shutil.rmtree(work)
                raise
            shutil.rmtree(work)
    except torch.OutOfMemoryError as error:
        raise LearnError(f"{device} has too little memory", "train with --device cpu") from error
    except OSError as error:
        where = error.filename or work
        raise BundleError(
            f"cannot write {where} ({error.strerror or error})",
            "make room there, or give another --out",
        ) from error
    return found


class NothingGained(LearnError):
    """The codec has no fewer bytes than the one that it is built around.

    `comparison` holds the levels of both, judged on so many pictures.
    """

    def __init__(self, boundary: int, comparison: Comparison, judged_on: int, work: Path) -> None:
        ratio = comparison.ratio
        took = "no loss in common with" if ratio is None else f"{ratio:.2f} times the bytes of"
        super().__init__(
            f"the codec that was learned at boundary {boundary} has {took} `fkt` there",
            f"train longer or on more pictures ({work} keeps the crops for that, remove it if not)",
        )
        self.boundary, self.comparison, self.judged_on = boundary, comparison, judged_on


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Raises `LearnError` where another process trains there."""
    with (work / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LearnError(
                f"another process trains in {work}", "wait for it, or give another --out"
            ) from error
        yield


def _told_of_crops(progress: Progress, done: int, total: int) -> None:
    progress(f"preparing crops, {10 * (10 * done // total)} %", done, total)


def _learned(
    bundle: Bundle,
    boundary: Boundary,
    levels: list[int],
    pictures: PictureShares,
    learning: Learning,
    work: Path,
    device: torch.device,
    progress: Progress,
) -> LearnedBundle:
    manifest = bundle.manifest
    judging = Judging(bundle, pictures.judging)
    model = FrozenModel(bundle, boundary.id, device, judging.judge.weights)
    store = CropStore.opened(
        work, model, pictures, learning.seed, partial(_told_of_crops, progress)
    )
    (table,) = codecs_of(manifest, bundle.folder).tables(boundary.id).values()
    some = store.some(range(bounded(WHITENED, boundary, store)))
    octaves = octaves_between(table, levels)

    def fresh() -> CodecModel:
        torch.manual_seed(learning.seed)
        return CodecModel(table, some, octaves, device)

    held = _crossing(model, pictures)
    sketch = Regimen(
        steps=learning.steps or 1,
        octaves=octaves,
        bits=usual_bits(boundary, levels),
        seed=learning.seed,
        half=has_bfloat16(device),
    )

    def trainer_of(course: Regimen) -> Trainer:
        return Trainer(fresh(), model, store, held, course)

    course = _course(sketch, learning, work, lambda course: trainer_of(course).trial_s())
    trainer = trainer_of(course)
    codec = trainer.codec
    trainer.run(work / _STATE, progress)
    draft = Path(tempfile.mkdtemp(prefix=f".{learning.out.name}.", dir=learning.out.parent))
    try:
        draft.chmod(0o755)
        made = with_codec(bundle, boundary, codec.cpu(), table, levels, store, draft)
        comparison = judging.compare(boundary.id, codecs_of(made, draft), len(levels), progress)
        if comparison.ratio is None or comparison.ratio >= 1:
            (work / _STATE).unlink()  # at its end: there is no going on
            raise NothingGained(boundary.id, comparison, len(pictures.judging), work)
        boundaries = list(made.boundaries)
        boundaries[boundary.id] = replace(
            boundaries[boundary.id],
            ladder=(*boundaries[boundary.id].ladder, *comparison.learned),
        )
        sealed = write_manifest(draft, replace(made, boundaries=tuple(boundaries)))
        draft.rename(learning.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return LearnedBundle(
        bundle=replace(sealed, folder=learning.out),
        boundary=boundary.id,
        comparison=comparison,
        course=course,
        losses=tuple(trainer.losses),
        trained_on=len(pictures.training),
        judged_on=len(pictures.judging),
    )


def _crossing(model: FrozenModel, pictures: PictureShares) -> torch.Tensor:
    """What held-back pictures become at the boundary, on the CPU."""
    picture, name = model.manifest.picture, model.manifest.picture_tensor
    assert picture is not None
    assert name is not None
    return torch.cat(
        [model.before({name: pixels(picture, p)[np.newaxis]}).cpu() for p in pictures.stopping]
    )


def _course(
    sketch: Regimen, learning: Learning, work: Path, trial_s: Callable[[Regimen], float]
) -> Regimen:
    """The one that was begun with, where there is one for what is asked for.

    `trial_s` says what a step takes on this machine.
    """
    length = f"{learning.steps} steps" if learning.steps else f"{learning.hours} hours"
    stored = (work / STORED).read_text(encoding="utf-8")
    asked_of = json.dumps([FORMAT, length, learning.seed, stored])
    kept = work / _COURSE
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        steps = record["steps"]
        if record["asked"] == asked_of and type(steps) is int and steps >= 1:
            return replace(sketch, steps=steps)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # there is none yet, or none that can be read
    (work / _STATE).unlink(missing_ok=True)
    steps = learning.steps or max(int(_SHARE * 3600 * learning.hours / trial_s(sketch)), 1)
    write_whole(kept, json.dumps({"asked": asked_of, "steps": steps}))
    return replace(sketch, steps=steps)
