"""Bundles that are compiled once a machine: compiling takes seconds, and always gives the same.

They lie in the user's cache under a key of all that they follow from: the compiler's source, the
versions that it works with, and the source of the tests that give models and pictures. Tests must
leave them as they are; who wants to change one copies it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from splitpoint.partition.bundle.bundle import Bundle, open_bundle

ROOT = Path(__file__).parents[1]
COMPILER = ("codec", "partition")
MODELS = ("tests/conftest.py", "tests/calibrated.py", "tests/built.py", "tests/newer_model.py")
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "safetensors")
KEPT = 3  # keys: a branch or two beside the present state
# Not XDG_CACHE_HOME, which tests point elsewhere.
FOLDER = Path(os.environ.get("SPLITPOINT_TEST_CACHE", "~/.cache/splitpoint-tests")).expanduser()


@functools.cache
def key() -> str:
    """Of all that a compiled bundle follows from."""
    found = hashlib.sha256()
    paths = [ROOT / name for name in MODELS]
    for room in COMPILER:
        paths += sorted((ROOT / room).rglob("*.py"))
    for path in paths:
        found.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    for name in LIBRARIES:
        found.update(f"{name} {version(name)}\n".encode())
    return found.hexdigest()[:16]


def built(name: str, compiles: Callable[[Path], Bundle], source: str = "") -> Bundle:
    """The bundle called `name`, which `compiles` writes to a path where it is not there yet.

    `source` is the file that gives its model, where that is a file of tests.
    """
    folder = FOLDER / key()
    if source:
        folder /= hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.split"
    with FileLock(folder / f"{name}.lock"):
        if not target.exists():
            _forget_old()
            unfinished = folder / f"{name}.part"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            compiles(unfinished / target.name)  # a bundle is called as its folder
            (unfinished / target.name).rename(target)
            unfinished.rmdir()
    return open_bundle(target)


def _forget_old() -> None:
    """Leaves the latest keys."""
    folders = sorted(FOLDER.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
