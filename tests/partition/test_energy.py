"""The model of power; which meter is chosen, and why another was not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from energy_boards import ORIN_NANO, PI5, FakeNvml, FakeTime, here, rapl, refusing, tree
from splitpoint.partition.energy import meter as meter_module
from splitpoint.partition.energy.find import (
    METERS,
    EnergyError,
    NoMeter,
    PowerModel,
    choose_meter,
    find_meters,
    measured,
)
from splitpoint.partition.energy.meter import run_command

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_power_model() -> None:
    time = FakeTime()
    model = PowerModel("board", 1.5, 4.5, "a data sheet", clock=time.clock)
    assert model.mj(10) == 45
    assert model.mj(10, 20) == 45 + 30
    assert model.stop().kind == "none"
    model.start()
    time.now = 0.2
    reading = model.stop()
    assert (reading.mj, reading.kind, reading.meter) == (pytest.approx(900), "modelled", "board")
    assert model.describe() == "power model board: 4.5 W busy, 1.5 W idle (a data sheet)"


@pytest.mark.parametrize(
    "watts", [(-1, 2), (3, 2), (0, 0), (0, float("inf")), (float("nan"), 2), (0, float("nan"))]
)
def test_impossible_power_model(watts: tuple[float, float]) -> None:
    with pytest.raises(EnergyError):
        PowerModel("x", *watts, "")


# Finding and choosing.


def test_nothing_here(tmp_path: Path) -> None:
    found = find_meters(**here(tmp_path))
    assert [meter.name for meter in found] == list(METERS) == ["rapl", "jetson", "pi5", "nvml"]
    assert not any(meter.usable for meter in found)
    assert all(meter.detail.startswith("not found") for meter in found)
    meter = choose_meter(**here(tmp_path))
    with measured(meter) as result:
        pass
    assert (result.reading.mj, result.reading.kind) == (None, "none")
    assert "no power sensor" in result.reading.warning
    model = PowerModel("x", 1, 2, "")
    assert choose_meter(model=model, **here(tmp_path)) is model
    for name in METERS:
        with pytest.raises(EnergyError) as caught:
            choose_meter(name, **here(tmp_path))
        assert "not found" in caught.value.what
        assert caught.value.remedy


def test_everything_here(tmp_path: Path) -> None:
    rapl(tmp_path, z0=("package-0", 900))
    tree(tmp_path, ORIN_NANO)
    model = PowerModel("x", 1, 2, "")
    machine = {"root": tmp_path, "run": lambda command: PI5, "nvml": lambda: FakeNvml([5])}
    assert [meter.name for meter in find_meters(**machine) if meter.usable] == list(METERS)
    assert choose_meter(model=model, **machine).name == "jetson"
    for name in METERS:
        assert choose_meter(name, model=model, **machine).name == name
    assert choose_meter("model", model=model, **machine) is model
    assert isinstance(choose_meter("none", model=model, **machine), NoMeter)


def test_auto_never_takes_the_gpu_for_the_device(tmp_path: Path) -> None:
    machine = here(tmp_path) | {"nvml": lambda: FakeNvml([5])}
    assert choose_meter(**machine).kind == "none"


def test_auto_says_why_the_meter_that_is_there_was_not_used(tmp_path: Path) -> None:
    machine = here(tmp_path) | {"run": refusing(OSError("can't open /dev/vcio"))}
    assert "pi5: can't open /dev/vcio" in choose_meter(**machine).describe()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(EnergyError) as caught:
        choose_meter("wattmeter", **here(tmp_path))
    assert all(name in caught.value.remedy for name in ("auto", "none", "model", *METERS))
    with pytest.raises(EnergyError, match="idle and busy watts"):
        choose_meter("model", **here(tmp_path))


# Commands.


def test_run_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command([sys.executable, "-c", "print('a=1')"]) == "a=1\n"
    with pytest.raises(OSError, match=r"status 3 \(no\)"):
        run_command([sys.executable, "-c", "import sys; print('no\\nmore'); sys.exit(3)"])
    with pytest.raises(FileNotFoundError):
        run_command(["splitpoint-no-such-command"])
    monkeypatch.setattr(meter_module, "_COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError, match="did not answer"):
        run_command([sys.executable, "-c", "import time; time.sleep(30)"])
