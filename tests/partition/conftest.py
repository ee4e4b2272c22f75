"""What many tests of models, meters and calibrations share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import two_tensors as model
from built import built
from calibrated import SCENES
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.compile.compile import compile_model


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Meters end the threads in which they sample."""
    yield
    assert not [t for t in threading.enumerate() if t.name == "splitpoint-energy"]


@pytest.fixture
def short_metering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpoint.partition.profile.measure_energy.METERED_S", 0.01)
    monkeypatch.setattr("splitpoint.partition.profile.measure_energy.IDLE_S", 0.01)


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of `TwoTensors`."""
    folder, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for index in range(SCENES):
        scale = rng.uniform(0.5, 2, (1, 6))
        np.savez(
            folder / f"{index:02}.npz",
            x=(scale * rng.normal(size=(16, 6))).astype(np.float32),
            ids=rng.integers(0, 9, 4),
        )
    return folder


@pytest.fixture(scope="session")
def two_tensors(arrays: Path) -> Bundle:
    """Calibrated."""
    spec, calibration = model.two_tensors_spec(), Calibration(source=str(arrays))
    return built(
        "two",
        lambda path: compile_model(spec, path, boundaries=20, calibration=calibration),
        model.__file__,
    )
