"""The processor's own counters, on recorded trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_boards import RANGE, RAPL, FakeTime, advance, forbidding, here, rapl, tree
from splitpoint.partition.energy.find import (
    EnergyError,
    choose_meter,
    find_meters,
    measured,
)
from splitpoint.partition.energy.rapl import EVERY_S, open_rapl

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_rapl_adds_package_and_dram_and_nothing_twice(tmp_path: Path) -> None:
    root = rapl(
        tmp_path,
        z0=("package-0", RANGE - 850),
        z0_0=("core", 100),
        z0_1=("uncore", 100),
        z0_2=("dram", 5000),
        z1=("package-1", 0),
    )
    tree(
        root,
        {
            f"{RAPL}/intel-rapl-mmio:0/{k}": v
            for k, v in {"name": "package-0", "energy_uj": 0, "max_energy_range_uj": RANGE}.items()
        },
    )
    meter = choose_meter("rapl", **here(root))
    assert meter.describe() == "RAPL package-0+dram+package-1, /sys/class/powercap"
    with measured(meter) as result:
        advance(root, "intel-rapl:0", 1150)  # round the corner: 850 + 1150
        advance(root, "intel-rapl:0:0", 10**9)
        advance(root, "intel-rapl:0:1", 10**9)
        advance(root, "intel-rapl:0:2", 8000)
        advance(root, "intel-rapl:1", 500)
        advance(root, "intel-rapl-mmio:0", 10**9)
    assert result.reading.mj == pytest.approx(2.0 + 3.0 + 0.5)
    assert (result.reading.kind, result.reading.meter) == ("measured", "rapl")


@pytest.mark.parametrize(("at_first", "zones"), [(700, "psys"), (0, "package-0")])
def test_rapl_psys_replaces_the_rest_where_it_counts(
    tmp_path: Path, at_first: int, zones: str
) -> None:
    root = rapl(tmp_path, z0=("package-0", 100), z1=("psys", at_first))
    assert open_rapl(root).describe() == f"RAPL {zones}, /sys/class/powercap"


def test_rapl_sees_every_wrap_of_a_long_measurement(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    tree(root, {f"{RAPL}/intel-rapl:0/max_energy_range_uj": 1000})
    counts = {1: 400, 2: 300}
    time = FakeTime(steps=2, at_step=lambda step: advance(root, "intel-rapl:0", counts[step]))
    meter = open_rapl(root, wait=time.wait)
    meter.start()
    time.rest()
    advance(root, "intel-rapl:0", 950)
    assert meter.stop().mj == pytest.approx((500 + 900 + 650) / 1e3)
    assert time.pauses == [EVERY_S, EVERY_S]
    assert EVERY_S <= 60


def test_rapl_that_goes_backwards_without_a_range(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    (root / RAPL / "intel-rapl:0/max_energy_range_uj").unlink()
    meter = open_rapl(root)
    meter.start()
    advance(root, "intel-rapl:0", 100)
    assert "package-0 went backwards" in meter.stop().warning


def test_rapl_for_root_only(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    machine = here(root) | {"read": forbidding("energy_uj")}
    found = {meter.name: meter for meter in find_meters(**machine)}
    remedy = f"sudo chmod a+r {root}/{RAPL}/intel-rapl:*/energy_uj"
    assert not found["rapl"].usable
    assert remedy in found["rapl"].detail
    with pytest.raises(EnergyError) as caught:
        choose_meter("rapl", **machine)
    assert remedy in caught.value.remedy
    nothing = choose_meter(**machine)
    assert nothing.kind == "none"
    assert remedy in nothing.stop().warning


def test_rapl_forbidden_while_measuring(tmp_path: Path) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    meter = open_rapl(root)
    meter.start()
    (root / RAPL / "intel-rapl:0/energy_uj").unlink()
    (root / RAPL / "intel-rapl:0/energy_uj").mkdir()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert "energy_uj: Is a directory" in reading.warning
    meter.start()
    assert "Is a directory" in meter.stop().warning


@pytest.mark.parametrize("garbage", ["", "n/a", "12 uJ"])
def test_rapl_garbage(tmp_path: Path, garbage: str) -> None:
    root = rapl(tmp_path, z0=("package-0", 900))
    meter = open_rapl(root)
    meter.start()
    (root / RAPL / "intel-rapl:0/energy_uj").write_text(garbage)
    assert "no number" in meter.stop().warning
    with pytest.raises(EnergyError, match="no number"):
        open_rapl(root)
