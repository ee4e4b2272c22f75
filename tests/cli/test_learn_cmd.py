"""`splitpoint learn`: what it prints, and how it says no."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from calibrated import calibrated_bundle
from command import Command
from conftest import LEARNED_AT
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.learn import crop_store
from splitpoint.partition.learn import learn as learning
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.tasks.task import Task
from splitpoint.partition.tasks.user_head import allow_head
from user_heads import heads_in, nobody_allows

AT = str(LEARNED_AT)


@pytest.fixture(autouse=True)
def _few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_store, "MOST_CROPS", 400)


def test_the_new_bundle_lies_beside_the_old_one(
    vivid_bundle: Bundle, scenes_folder: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "vivid.split").symlink_to(vivid_bundle.folder)
    words = ["learn", "vivid.split", "--images", scenes_folder, "--at", AT, "--steps", "30"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    new = open_bundle(tmp_path / "vivid-learned.split")
    assert new.digest[:12] in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vivid-learned.split", "vivid.split",
    ]  # fmt: skip
    for words_of_it in ("learned@1", "fkt@1", "jpeg", "for the decoder", "times the bytes of fkt"):
        assert words_of_it in " ".join(done.stdout.split())
    assert "preparing crops, 10 %" in done.stderr
    assert "training" in done.stderr
    shown = command("inspect", "vivid-learned.split", cwd=tmp_path).stdout
    assert "learned@1 to learned@" in " ".join(shown.split())


def test_json(vivid_bundle: Bundle, scenes_folder: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        "learn", vivid_bundle.folder, "--images", scenes_folder, "--at", AT, "--steps", "30",
        "--out", tmp_path / "new.split", "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    bundle = open_bundle(tmp_path / "new.split")
    assert found["digest"] == bundle.digest
    assert found["steps"] == 30
    assert 0 < found["bytes_ratio"] < 1
    levels = {level["codec"]: level for level in found["levels"]}
    own = bundle.manifest.boundaries[LEARNED_AT].levels_of("learned")
    for level in own:
        assert levels[level.codec]["nbytes"] == level.nbytes
    assert {"fkt@1", "jpeg", "webp"} <= levels.keys()
    flops = found["flops"]
    assert 0 < flops["encoder"] < flops["decoder"]
    assert 0 < flops["before"] < flops["model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "0"], "is the model's input"),
        (["--at", "2", "--images", "nowhere"], "does not exist"),
        (["--at", "2", "--device", "tpu"], "unknown device"),
    ],
)
def test_errors_are_one_line(
    vivid_bundle: Bundle,
    scenes_folder: Path,
    command: Command,
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    out = tmp_path / "new.split"
    done = command("learn", vivid_bundle.folder, "--images", scenes_folder, *words, "--out", out)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_it_goes_on(
    vivid_bundle: Bundle,
    scenes_folder: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning.Trainer, "run", interrupted)
    done = command(
        "learn", vivid_bundle.folder, "--images", scenes_folder, "--at", AT, "--steps", "9",
        "--out", tmp_path / "new.split",
    )  # fmt: skip
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr


def test_a_head_of_a_user_is_asked_for_before_anything_is_made(
    vivid_spec: ModelSpec,
    album_folder: Path,
    scenes_folder: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with heads_in(tmp_path, monkeypatch):
        allow_head("my_heads:boxes")
        spec = replace(vivid_spec, task=Task.of_head("my_heads:boxes", kind="detect"))
        calibrated_bundle(spec, album_folder, tmp_path / "m.split")
        nobody_allows(monkeypatch)
        words = ["learn", "m.split", "--images", scenes_folder, "--at", AT, "--steps", "3"]
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "--allow-head my_heads:boxes" in line
        monkeypatch.setattr("splitpoint.partition.learn.judged.bytes_ratio", lambda *rungs: 0.9)
        done = command(*words, "--allow-head", "my_heads:boxes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert open_bundle(tmp_path / "m-learned.split").manifest.boundaries[LEARNED_AT].learned
