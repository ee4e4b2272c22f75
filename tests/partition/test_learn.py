"""Learned codecs: what they gain, that interruption costs nothing, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from calibrated import album
from conftest import LEARNED_AT
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.errors import BundleError, LearnError, PictureError
from splitpoint.partition.learn import crop_store
from splitpoint.partition.learn.check import check_boundary
from splitpoint.partition.learn.frozen_model import FrozenModel
from splitpoint.partition.learn.judged import Judging, bytes_ratio
from splitpoint.partition.learn.learn import LearnedBundle, Learning, learn_codec
from splitpoint.partition.learn.pictures import MIN_PICTURES, PictureShares
from splitpoint.partition.progress import Progress, tell_nobody
from splitpoint.partition.run.codecs import codecs_of

CPU = torch.device("cpu")
STEPS = 8


@pytest.fixture(scope="module", autouse=True)
def _few_crops() -> Iterator[None]:
    """A few steps do not see more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop_store, "MOST_CROPS", 300)
        yield


def learned(
    bundle: Bundle, images: Path, out: Path, progress: Progress = tell_nobody, **options: object
) -> LearnedBundle:
    given: dict[str, object] = {"at": LEARNED_AT, "steps": STEPS} | options
    learning = Learning(images=str(images), out=out, **given)  # type: ignore[arg-type]
    return learn_codec(bundle.folder, learning, CPU, progress)


def at_step_three(what: str, done: int, total: int) -> None:
    """Progress of somebody who loses patience."""
    if what.startswith("training") and done == 3:
        raise KeyboardInterrupt


def networks_of(bundle: Bundle) -> dict[str, str]:
    """Digests of all that was trained and fitted; times, which differ, are in the manifest."""
    return {
        path: file.sha256
        for path, file in bundle.manifest.files.items()
        if path.startswith("learned/")
    }


@pytest.fixture(scope="module")
def whole(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> LearnedBundle:
    """Trained without a break."""
    out = tmp_path_factory.mktemp("learned") / "whole.split"
    return learned(vivid_bundle, scenes_folder, out)


def test_it_has_fewer_bytes_at_equal_loss_on_pictures_of_its_kind(
    learned_bundle: Bundle, tmp_path: Path
) -> None:
    others = sorted(album(tmp_path / "others", 340).iterdir())[240:]
    judging = Judging(learned_bundle, others)
    codecs = codecs_of(learned_bundle.manifest, learned_bundle.folder)
    levels = len(learned_bundle.manifest.boundaries[LEARNED_AT].levels_of("learned"))
    found = judging.compare(LEARNED_AT, codecs, levels, tell_nobody)
    assert found.ratio is not None
    assert found.ratio < 0.97


def test_the_bundle_has_all_that_it_had_and_the_codec(
    vivid_bundle: Bundle, learned_bundle: Bundle
) -> None:
    old, new = vivid_bundle.manifest, open_bundle(learned_bundle.folder).manifest
    assert old.digest == open_bundle(vivid_bundle.folder).digest != new.digest
    assert old.files.items() <= new.files.items()
    for before, after in zip(old.boundaries, new.boundaries, strict=True):
        assert after.ladder[: len(before.ladder)] == before.ladder
        assert bool(after.learned) == (after.id == LEARNED_AT)
    added = new.boundaries[LEARNED_AT].levels_of("learned")
    assert [level.codec for level in added] == [f"learned@{n + 1}" for n in range(len(added))]
    assert sorted(level.nbytes for level in added) == [level.nbytes for level in added]
    assert new.boundaries[LEARNED_AT].codecs[-1] == added[-1].codec


def test_the_same_steps_give_the_same_codec(
    vivid_bundle: Bundle, scenes_folder: Path, whole: LearnedBundle, tmp_path: Path
) -> None:
    again = learned(vivid_bundle, scenes_folder, tmp_path / "again.split")
    other = learned(vivid_bundle, scenes_folder, tmp_path / "other.split", seed=1)
    assert networks_of(again.bundle) == networks_of(whole.bundle)
    assert networks_of(other.bundle) != networks_of(whole.bundle)


@pytest.mark.parametrize("at", ["preparing crops", "training", "judging fkt"])
def test_interrupted_at_any_moment_it_goes_on(
    vivid_bundle: Bundle, scenes_folder: Path, whole: LearnedBundle, tmp_path: Path, at: str
) -> None:
    seen: list[int] = []

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith(at):
            seen.append(done)
            if len(seen) == 3:
                raise KeyboardInterrupt

    out = tmp_path / "new.split"
    with pytest.raises(KeyboardInterrupt):
        learned(vivid_bundle, scenes_folder, out, interrupt)
    kept = [] if at == "preparing crops" else [".new.split.learning"]
    assert [path.name for path in tmp_path.iterdir()] == kept
    steps: list[int] = []

    def count(what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            steps.append(done)

    found = learned(vivid_bundle, scenes_folder, out, count)
    assert networks_of(found.bundle) == networks_of(whole.bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["new.split"]
    left = {"preparing crops": STEPS, "training": STEPS - 3, "judging fkt": 0}[at]
    assert len(steps) == left


@pytest.mark.parametrize("call", [3, 20, 45])
def test_interrupted_within_a_step_or_a_look(
    vivid_bundle: Bundle,
    scenes_folder: Path,
    whole: LearnedBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    """Whatever was half done is done again from what was saved last."""
    loss, calls = FrozenModel.divergence, 0

    def interrupted(self: FrozenModel, *outputs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return loss(self, *outputs)

    out = tmp_path / "new.split"
    with monkeypatch.context() as patch:
        patch.setattr(FrozenModel, "divergence", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learned(vivid_bundle, scenes_folder, out)
    found = learned(vivid_bundle, scenes_folder, out)
    assert networks_of(found.bundle) == networks_of(whole.bundle)


def test_a_damaged_state_says_what_to_do(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.split"
    with pytest.raises(KeyboardInterrupt):
        learned(vivid_bundle, scenes_folder, out, at_step_three)
    (tmp_path / ".new.split.learning" / "training.pt").write_bytes(b"no state")
    with pytest.raises(LearnError, match=r"training\.pt cannot be gone on with") as caught:
        learned(vivid_bundle, scenes_folder, out)
    assert "remove" in caught.value.remedy


def test_what_another_bundle_began_is_not_gone_on_with(
    vivid_bundle: Bundle,
    learned_bundle: Bundle,
    scenes_folder: Path,
    whole: LearnedBundle,
    tmp_path: Path,
) -> None:
    out = tmp_path / "new.split"
    with pytest.raises(KeyboardInterrupt):
        learned(learned_bundle, scenes_folder, out, at_step_three, at=1)
    found = learned(vivid_bundle, scenes_folder, out)
    assert networks_of(found.bundle) == networks_of(whole.bundle)


def test_a_boundary_learns_anew(
    learned_bundle: Bundle, scenes_folder: Path, whole: LearnedBundle, tmp_path: Path
) -> None:
    found = learned(learned_bundle, scenes_folder, tmp_path / "again.split")
    assert networks_of(found.bundle) == networks_of(whole.bundle)
    names = [level.codec for level in found.bundle.manifest.boundaries[LEARNED_AT].ladder]
    assert len(set(names)) == len(names)
    open_bundle(found.bundle.folder)


def test_pictures_that_judge_are_never_trained_on(tmp_path: Path) -> None:
    folder = album(tmp_path / "many", 450)
    found = PictureShares.of(str(folder))
    lists = (found.training, found.stopping, found.judging)
    assert [len(some) for some in lists] == [360, 45, 45]
    assert len({path for some in lists for path in some}) == 450
    # A few runs of neighbours: of a film, a single frame beside its twin would tell nothing.
    order = sorted(folder.iterdir())
    for some in (found.stopping, found.judging):
        places = sorted(map(order.index, some))
        assert sum(b - a > 1 for a, b in pairwise(places)) <= 1
    named = PictureShares.of(str(folder), str(folder / "1[0-2]?.png"))
    assert [path.name for path in named.judging] == [f"{n}.png" for n in range(100, 130)]
    assert not set(named.judging) & {*named.training, *named.stopping}


@pytest.mark.parametrize(
    ("at", "words", "remedy"),
    [
        (0, "boundary 0 of vivid is the model's input", "have one: 1, 2"),
        (4, "boundary 4 of vivid is the model's output", "have one: 1, 2"),
        (9, "boundary 9 of vivid does not exist", "have one: 1, 2"),
        (3, "boundary 3 carries float32 [1, 16], which is no stack of maps", "have one: 1, 2"),
    ],
)
def test_boundaries_that_can_have_none(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path, at: int, words: str, remedy: str
) -> None:
    with pytest.raises(LearnError) as caught:
        learned(vivid_bundle, scenes_folder, tmp_path / "out.split", at=at)
    assert words in caught.value.what
    assert remedy in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_too_few_pictures(vivid_bundle: Bundle, tmp_path: Path) -> None:
    few = album(tmp_path / "few", MIN_PICTURES - 1)
    with pytest.raises(LearnError, match=f"{MIN_PICTURES - 1} pictures are too few"):
        learned(vivid_bundle, few, tmp_path / "out.split")
    with pytest.raises(PictureError):
        learned(vivid_bundle, tmp_path / "none", tmp_path / "out.split")


def test_too_few_pictures_to_judge_on(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path
) -> None:
    judge = str(scenes_folder / "0?.png")
    with pytest.raises(LearnError, match="10 pictures are too few to judge on"):
        learned(vivid_bundle, scenes_folder, tmp_path / "out.split", judge=judge)


def test_a_bundle_without_tables(small_bundle: Bundle, scenes_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LearnError, match="0 levels of the transform codec") as caught:
        learned(small_bundle, scenes_folder, tmp_path / "out.split")
    assert "--calibrate" in caught.value.remedy


def test_a_model_without_pictures(two_tensors: Bundle, scenes_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LearnError, match="takes no pictures") as caught:
        learned(two_tensors, scenes_folder, tmp_path / "out.split", at=1)
    assert "compile --calibrate" in caught.value.remedy


def test_models_that_take_no_batch_of_pictures(vivid_bundle: Bundle) -> None:
    manifest = vivid_bundle.manifest
    (pixels,) = manifest.boundaries[0].tensors
    alone = replace(manifest.boundaries[0], tensors=(replace(pixels, one_sample=True),))
    with pytest.raises(LearnError, match="takes one sample at a time"):
        check_boundary(replace(manifest, boundaries=(alone, *manifest.boundaries[1:])), 1)
    two = replace(manifest.boundaries[0], tensors=(pixels, replace(pixels, name="other")))
    with pytest.raises(LearnError, match="has several inputs"):
        check_boundary(replace(manifest, boundaries=(two, *manifest.boundaries[1:])), 1)


def test_a_file_that_is_no_picture(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(scenes_folder, tmp_path / "images"))
    for name in ("05.png", "07.png"):
        (images / name).write_bytes(b"no picture")
    with pytest.raises(LearnError, match=r"2 of 240 files are no pictures .*05\.png, 07\.png"):
        learned(vivid_bundle, images, tmp_path / "out.split")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_out_that_is_there(vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.split").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        learned(vivid_bundle, scenes_folder, tmp_path / "out.split")


def test_an_out_that_cannot_be_is_said_before_pictures_are_looked_at(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with pytest.raises(BundleError, match=r"cannot write .*file") as caught:
        learned(
            vivid_bundle, scenes_folder, tmp_path / "file" / "out.split",
            lambda what, *_: said.append(what),
        )  # fmt: skip
    assert "another --out" in caught.value.remedy
    assert not said


def test_a_work_folder_that_leads_elsewhere(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.split.learning").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LearnError, match="is a link"):
        learned(vivid_bundle, scenes_folder, tmp_path / "out.split")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_at_once(vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path) -> None:
    out, caught = tmp_path / "out.split", []

    def another(what: str, done: int, total: int) -> None:
        if what.startswith("training") and not caught:
            with pytest.raises(LearnError, match="another process trains") as error:
                learned(vivid_bundle, scenes_folder, out)
            caught.append(error)

    learned(vivid_bundle, scenes_folder, out, another)
    assert caught


def test_where_nothing_is_gained_there_is_no_bundle(
    vivid_bundle: Bundle, scenes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitpoint.partition.learn.judged.bytes_ratio", lambda *rungs: 1.02)
    with pytest.raises(LearnError, match=r"1\.02 times the bytes of `fkt`"):
        learned(vivid_bundle, scenes_folder, tmp_path / "out.split")
    # Longer training begins with the same crops.
    assert [path.name for path in tmp_path.iterdir()] == [".out.split.learning"]
    monkeypatch.undo()
    said: list[str] = []
    found = learned(
        vivid_bundle, scenes_folder, tmp_path / "out.split", lambda what, *_: said.append(what),
        steps=STEPS + 20,
    )  # fmt: skip
    assert found.course.steps == STEPS + 20
    assert not [what for what in said if what.startswith("preparing")]


def rung(nbytes: float, loss: float) -> CodecLevel:
    return CodecLevel(
        codec="x", judged=9, agreed=9, loss=loss, nbytes=nbytes, p95_bytes=nbytes,
        encode_ms=0, decode_ms=0,
    )  # fmt: skip


def test_the_ratio_of_bytes() -> None:
    rival = [rung(1000, 0.1), rung(2000, 0.05), rung(4000, 0.01)]
    halved = [rung(500, 0.1), rung(1000, 0.05), rung(2000, 0.01)]
    assert bytes_ratio(halved, rival) == pytest.approx(0.5)
    assert bytes_ratio(rival, rival) == pytest.approx(1)
    assert bytes_ratio(rival[:1], rival) is None
    assert bytes_ratio([rung(9, 0.5), rung(8, 0.7)], rival) is None
