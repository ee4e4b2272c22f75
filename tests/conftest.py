"""Bundles and workers that many tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built import built
from calibrated import album, calibrated_bundle, vivid
from command import BRIEF_S, Command
from hypothesis import settings
from local_worker import local_worker
from newer_model import newer_of
from splitpoint.cloud.worker import Worker
from splitpoint.edge.dispatch import auto_plan
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.learn.learn import Learning, learn_codec
from splitpoint.partition.learn.pictures import MIN_PICTURES
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.progress import tell_nobody

LEARNED_AT = 2  # boundary of `learned_bundle`

# Deadlines of examples would depend on what else the machine does.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

LONG = (
    "test_benchmarks.py",
    "test_readme.py",
    "test_gpu_script.py",
    "test_cli.py",
    "test_faults.py",
    "test_compile.py",
    "test_model_shapes.py",
    "test_calibrate_models.py",
    "test_four_sources.py",
    "test_run_processes.py",
)


def pytest_collection_finish() -> None:
    """No collection looks through torch and all test modules again, which took half a second."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: the processes then end at about the same time."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


class SmallNet(torch.nn.Module):
    """A picture classifier that compiles in two seconds: 24x24 pixels, 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.relu = torch.nn.ReLU(inplace=True)
        self.conv2 = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv3 = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.head = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.conv2(x))
        x = x + self.conv3(x)
        return self.head(x.mean((2, 3)))


def small_spec(labels: tuple[str, ...] = ("ant", "bee", "cat", "dog", "eel")) -> ModelSpec:
    torch.manual_seed(0)
    net = SmallNet().eval()
    with torch.no_grad():
        net.bn1.running_mean.normal_()
        net.bn1.running_var.uniform_(0.5, 2)
    return ModelSpec.of_picture_model(
        "small",
        net,
        PictureInput(resize_px=26, height_px=24, width_px=24),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        labels=labels,
    )


@pytest.fixture(scope="session", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker times the batches of a bundle once, and not in every test; nobody's own is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _brief_measures() -> Iterator[None]:
    """An agent that plans measures its device, and here a first idea of it is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_plan, "MAX_SECONDS", BRIEF_S)
        yield


@pytest.fixture(scope="session")
def small() -> ModelSpec:
    return small_spec()


@pytest.fixture(scope="session")
def small_bundle(small: ModelSpec) -> Bundle:
    return built("small", lambda path: compile_model(small, path, boundaries=5))


@pytest.fixture(scope="session")
def newer(small: ModelSpec) -> ModelSpec:
    return newer_of(small)


@pytest.fixture(scope="session")
def newer_bundle(newer: ModelSpec) -> Bundle:
    return built("newer", lambda path: compile_model(newer, path, boundaries=3))


@pytest.fixture(scope="session")
def album_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures to calibrate with."""
    return album(tmp_path_factory.mktemp("albums") / "typical")


@pytest.fixture(scope="session")
def vivid_spec(small: ModelSpec, album_folder: Path) -> ModelSpec:
    return vivid(small, album_folder)


@pytest.fixture(scope="session")
def vivid_bundle(vivid_spec: ModelSpec, album_folder: Path) -> Bundle:
    """Calibrated."""
    return built("vivid", lambda path: calibrated_bundle(vivid_spec, album_folder, path))


@pytest.fixture(scope="session")
def int8_bundle(vivid_spec: ModelSpec, album_folder: Path) -> Bundle:
    """Calibrated, with INT8 segments."""
    calibration = Calibration(source=str(album_folder), int8=True)
    return built(
        "int8",
        lambda path: compile_model(vivid_spec, path, boundaries=5, calibration=calibration),
    )


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures to train with."""
    return album(tmp_path_factory.mktemp("albums") / "many", MIN_PICTURES + 40)


@pytest.fixture(scope="session")
def learned_bundle(vivid_bundle: Bundle, scenes_folder: Path) -> Bundle:
    """Calibrated, with a learned codec at `LEARNED_AT`."""
    learning = Learning(images=str(scenes_folder), at=LEARNED_AT, out=Path(), steps=150)
    return built(
        "learned",
        lambda path: (
            learn_codec(
                vivid_bundle.folder, replace(learning, out=path), torch.device("cpu"), tell_nobody
            ).bundle
        ),
    )


@pytest.fixture(scope="session")
def lite0() -> ModelSpec:
    return load_model("efficientnet-lite0")


@pytest.fixture(scope="session")
def lite0_bundle(lite0: ModelSpec) -> Bundle:
    return built("lite0", lambda path: compile_model(lite0, path))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real photos as files."""
    import skimage.data
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for name in ("coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def served_bundle(small_bundle: Bundle) -> Bundle:
    """What `worker` serves."""
    return small_bundle


@pytest.fixture
def worker_options() -> dict[str, Any]:
    """What `worker` is told. A module whose worker is another one overrides this."""
    return {}


@pytest.fixture
async def worker(served_bundle: Bundle, worker_options: dict[str, Any]) -> AsyncIterator[Worker]:
    """It runs in this process. Its times are measured once (see `_one_cache`)."""
    async with local_worker(served_bundle, **worker_options) as running:
        yield running


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`splitpoint`, in this process."""
    return Command(capsys)


@pytest.fixture
def pixels() -> np.ndarray:
    """Three samples for the small net."""
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3)).astype(np.uint8)
