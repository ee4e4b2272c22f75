"""Calibration inputs that do not do: each is refused in one line that says what to do."""

from __future__ import annotations

import gc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from calibrated import album
from command import Command
from split_tables import manifest_of
from splitpoint.codec import SplitpointError, TensorSpec
from splitpoint.partition.bundle.bundle import Boundary, Bundle, Manifest
from splitpoint.partition.bundle.model_kind import CLASSIFY, RAW_TASK
from splitpoint.partition.calibrate.calibrate import MAX_INPUTS, MIN_INPUTS
from splitpoint.partition.calibrate.inputs import (
    Calibration,
    CalibrationInputs,
    calibration_inputs,
)
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CalibrationError, PictureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput

# Archives are left open where they are refused, see `test_a_damaged_archive_is_closed`.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    """Collected while the test that made it still ignores what is said of it."""
    yield
    gc.collect()


X = TensorSpec(name="x", dtype="float32", shape=(1, 5, 6), batch_dim=0)
IDS = TensorSpec(name="ids", dtype="int64", shape=(1, 4), batch_dim=0)


def arrays_manifest(*specs: TensorSpec, classes: int = 0) -> Manifest:
    """A model of arrays; with `classes` a classifier."""
    made = manifest_of(2)
    output = TensorSpec(name="t2", dtype="float32", shape=(1, classes or 3), batch_dim=0)
    boundaries = (
        Boundary(id=0, after=None, tensors=specs),
        made.boundaries[1],
        Boundary(id=2, after=None, tensors=(output,)),
    )
    return replace(made, boundaries=boundaries, task=CLASSIFY if classes else RAW_TASK)


ONE, TWO = arrays_manifest(X), arrays_manifest(X, IDS)


def read(manifest: Manifest, source: Path | str, labels: Path | None = None) -> CalibrationInputs:
    return calibration_inputs(manifest, Calibration(source=str(source), labels=labels))


def refused(ask: Callable[[], object], kind: type[SplitpointError] = CalibrationError) -> str:
    """What it says; one line, and what to do about it."""
    with pytest.raises(kind) as caught:
        ask()
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


# Pictures


def test_arrays_that_are_no_pictures_have_no_look() -> None:
    """A user's own model may read photos and take something else."""
    manifest = replace(ONE, picture=PictureInput(height_px=8, width_px=8))
    given = CalibrationInputs(inputs=({"x": np.zeros(X.shape, np.float32)},), labels=())
    assert given.usual_look(manifest) is None


def test_pictures_come_as_the_model_reads_them(small_bundle: Bundle, tmp_path: Path) -> None:
    folder = album(tmp_path / "album", 9)
    manifest = small_bundle.manifest
    found = read(manifest, folder)
    assert found.labels == ()
    assert manifest.picture is not None
    paths = sorted(folder.iterdir())
    assert len(found.inputs) == len(paths)
    for given, path in zip(found.inputs, paths, strict=True):
        assert given.keys() == {"pixels"}
        assert np.array_equal(given["pixels"], manifest.picture.read(path)[np.newaxis])
    assert len(read(manifest, folder / "0[0-3].png").inputs) == 4


def test_at_most_so_many_and_evenly(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_INPUTS == 500
    monkeypatch.setattr("splitpoint.partition.calibrate.inputs.MAX_INPUTS", 3)
    folder = album(tmp_path / "album", 9)
    found = read(small_bundle.manifest, folder)
    assert small_bundle.manifest.picture is not None
    for given, name in zip(found.inputs, ("00", "04", "08"), strict=True):
        expected = small_bundle.manifest.picture.read(folder / f"{name}.png")
        assert np.array_equal(given["pixels"][0], expected)


def test_no_pictures(small_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    empty = refused(lambda: read(small_bundle.manifest, tmp_path), PictureError)
    assert "holds no pictures" in empty
    missing = refused(lambda: read(small_bundle.manifest, tmp_path / "nowhere"), PictureError)
    assert "does not exist" in missing


def test_a_broken_picture(small_bundle: Bundle, tmp_path: Path) -> None:
    """It is named, and not left out: whoever calibrates is to know what with."""
    folder = album(tmp_path / "album", 9)
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:200])
    words = refused(lambda: read(small_bundle.manifest, folder))
    assert "05.png" in words
    assert "remove it" in words


def test_too_few(small: ModelSpec, tmp_path: Path) -> None:
    folder = album(tmp_path / "album", MIN_INPUTS - 1)
    words = refused(
        lambda: compile_model(
            small,
            tmp_path / "s.split",
            boundaries=3,
            calibration=Calibration(source=str(folder)),
        )
    )
    assert "7 inputs are too few" in words
    assert "at least 8" in words
    assert [entry.name for entry in tmp_path.iterdir()] == ["album"]  # and no half of a bundle


# Arrays


def test_arrays_with_and_without_the_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(1, 5, 6)).astype(np.float32) for _ in range(3)]
    np.save(tmp_path / "b.npy", samples[1])
    np.save(tmp_path / "a.npy", samples[0][0])
    np.savez(tmp_path / "c.npz", x=samples[2], other=[1])
    (tmp_path / "notes.txt").write_text("no array")
    found = read(ONE, tmp_path)
    for given, sample in zip(found.inputs, samples, strict=True):
        assert given.keys() == {"x"}
        assert np.array_equal(given["x"], sample)


def test_several_inputs(tmp_path: Path) -> None:
    x, ids = np.ones((5, 6), np.float32), np.arange(4)
    np.savez_compressed(tmp_path / "a.npz", x=x, ids=ids)
    (given,) = read(TWO, tmp_path).inputs
    assert {name: array.shape for name, array in given.items()} == {"x": (1, 5, 6), "ids": (1, 4)}
    np.savez(tmp_path / "b.npz", x=x)
    words = refused(lambda: read(TWO, tmp_path))
    assert "b.npz lacks the input 'ids'" in words
    np.save(tmp_path / "b.npy", x)
    assert "b.npy lacks the input 'ids'" in refused(lambda: read(TWO, tmp_path / "b.npy"))


def test_no_arrays(tmp_path: Path) -> None:
    album(tmp_path / "album", 1)
    for folder in (tmp_path, tmp_path / "album"):
        assert ".npy or .npz" in refused(lambda folder=folder: read(ONE, folder))
    missing = refused(lambda: read(ONE, tmp_path / "nowhere"), SplitpointError)
    assert "does not exist" in missing


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((5, 7), np.float32), "shape [5, 7]"),
        (np.ones((2, 5, 6), np.float32), "several samples"),
        (np.ones((0, 5, 6), np.float32), "shape [0, 5, 6]"),
        (np.ones(30, np.float32), "shape [30]"),
        (np.float32(1), "shape []"),
        (np.ones((5, 6)), "is float64, expected float32"),
        (np.ones((5, 6), np.dtype(">f4")), "expected float32"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array)
    said = refused(lambda: read(ONE, tmp_path))
    assert "a.npy" in said
    assert words in said


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))

    traps = np.array([Trap()], dtype=object)
    np.save(tmp_path / "a.npy", traps, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=traps)
    for name in ("a.npy", "b.npz"):
        assert f"{name} holds no array" in refused(lambda name=name: read(ONE, tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_files_that_hold_no_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.ones((5, 6), np.float32))
    good = (tmp_path / "good.npy").read_bytes()
    for suffix in (".npy", ".npz"):
        for content in (b"", b"text", good[:20], good[:-8] if suffix == ".npy" else good[:-1]):
            path = tmp_path / f"bad{suffix}"
            path.write_bytes(content)
            assert f"bad{suffix}" in refused(lambda path=path: read(ONE, path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.npy").mkdir()
    assert "holds no inputs" in refused(lambda: read(ONE, tmp_path / "folder"))


@pytest.mark.parametrize(
    ("suffix", "at", "value"),
    [
        (".npy", 8, 40),  # a header that ends in the middle of a list
        (".npz", 8, 99),  # a method of compression that nobody knows
        (".npz", 6, 1),  # encrypted
    ],
)
def test_whatever_numpy_raises(tmp_path: Path, suffix: str, at: int, value: int) -> None:
    path = tmp_path / f"bad{suffix}"
    if suffix == ".npy":
        np.save(path, np.ones((5, 6), np.float32))
    else:
        np.savez(path, x=np.ones((5, 6), np.float32))
    data = bytearray(path.read_bytes())
    data[at] = value
    if suffix == ".npz":  # what is said of it a second time, at the end, counts
        data[data.rindex(b"PK\x01\x02") + at + 2] = value
    path.write_bytes(data)
    assert f"bad{suffix} holds no array" in refused(lambda: read(ONE, path))


def test_an_archive_under_the_name_of_an_array(tmp_path: Path) -> None:
    """What is inside counts, not the name."""
    np.savez(tmp_path / "a.npz", y=np.ones((5, 6), np.float32))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert "lacks the input 'x'" in refused(lambda: read(ONE, tmp_path / "a.npy"))


def test_an_array_under_the_name_of_an_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(30, np.float32))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(lambda: read(ONE, tmp_path / "a.npz"))


def damaged_archive(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", x=np.ones((5, 6), np.float32))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        (entry,) = archive.infolist()
    data[entry.header_offset + 200] ^= 1  # in the values: its checksum does not fit any more
    (tmp_path / "a.npz").write_bytes(data)
    return tmp_path / "a.npz"


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = damaged_archive(tmp_path)
    assert "a.npz holds no array" in refused(lambda: read(ONE, path))


def test_a_damaged_archive_is_closed(tmp_path: Path) -> None:
    path = damaged_archive(tmp_path)
    with pytest.raises(CalibrationError) as caught:
        read(ONE, path)
    assert "a.npz" in str(caught.value)  # whose traceback is still here
    assert str(path) not in [file.path for file in psutil.Process().open_files()]


# Labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four inputs, one with a space in its name."""
    made = tmp_path / "inputs"
    made.mkdir()
    for name in ("a", "b", "c d", "e"):
        np.save(made / f"{name}.npy", np.ones((5, 6), np.float32))
    return made


CLASSIFIER = arrays_manifest(X, classes=5)


def labelled(folder: Path, text: str, manifest: Manifest = CLASSIFIER) -> CalibrationInputs:
    path = folder.parent / "labels.txt"
    path.write_text(text)
    return read(manifest, folder, path)


def test_labels_in_the_order_of_the_files(folder: Path) -> None:
    text = "e.npy 0\nc d.npy 4\n\nother.npy 1\n  b.npy   3  \na.npy 2"
    assert labelled(folder, text).labels == (2, 3, 4, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.npy 1\nb.npy 2\ne.npy 1\n", "has no class for c d.npy"),
        ("a.npy 1\n", "has no class for b.npy and 2 more"),
        ("", "has no class for a.npy and 3 more"),
        ("a.npy\n", "line 1 of"),
        ("a.npy 1\nb.npy cat\n", "line 2 of"),
        ("a.npy -1\n", "'a.npy -1'"),
        ("a.npy 5\n", "a number below 5"),
        ("a.npy 1.0\n", "line 1 of"),
        ("a.npy ٣\n", "line 1 of"),
        (" 3\n", "line 1 of"),
    ],
)
def test_labels_that_do_not_do(folder: Path, text: str, words: str) -> None:
    said = refused(lambda: labelled(folder, text))
    assert words in said
    assert "labels.txt" in said


def test_a_class_of_very_many_digits(folder: Path) -> None:
    refused(lambda: labelled(folder, "a.npy " + "9" * 5000))


def test_labels_of_a_model_that_has_no_classes(folder: Path) -> None:
    words = refused(lambda: labelled(folder, "a.npy 1\n", ONE))
    assert "is no classifier: leave --truth out" in words


def test_labels_that_cannot_be_read(folder: Path) -> None:
    for path in (folder, folder / "nothing.txt"):
        words = refused(lambda path=path: read(CLASSIFIER, folder, path))
        assert "cannot read" in words
    binary = folder.parent / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refused(lambda: read(CLASSIFIER, folder, binary))


# The command


def test_labels_without_inputs_are_wrong_usage(command: Command, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.txt", tmp_path / "x.split"
    labels.write_text("a.png 1\n")
    done = command("compile", "efficientnet-lite0", "--out", out, "--truth", labels)
    assert done.returncode == 2
    assert "--calibrate" in done.stderr
    assert not out.exists()
