"""The radio model, worked out by hand."""

from __future__ import annotations

import pytest
from splitpoint.partition.energy.find import EnergyError
from splitpoint.partition.energy.radio import RADIOS, radio_for
from splitpoint.partition.plan.link import NAMED


def test_power() -> None:
    lte = RADIOS["lte"]
    assert lte.power_mw() == pytest.approx(1288.04)
    assert lte.power_mw(up_mbps=2) == pytest.approx(2164.82)
    assert lte.power_mw(up_mbps=2, down_mbps=10) == pytest.approx(2684.52)


@pytest.mark.parametrize(
    ("name", "mbps", "mj"),
    [
        # 125 000 bytes are 1 Mbit: the energy is up + base / rate.
        ("lte", 1.0, 438.39 + 1288.04),
        ("lte", 4.0, 438.39 + 322.01),
        ("3g", 1.0, 868.98 + 817.88),
        ("wifi", 10.0, 283.17 + 13.286),
        ("none", 10.0, 0.0),
    ],
)
def test_upload(name: str, mbps: float, mj: float) -> None:
    assert RADIOS[name].upload_mj(125_000, mbps) == pytest.approx(mj)
    assert RADIOS[name].upload_mj(250_000, mbps) == pytest.approx(2 * mj)
    assert RADIOS[name].upload_mj(0, mbps) == 0


@pytest.mark.parametrize("mbps", [0.0, -1.0, float("nan"), float("inf")])
def test_no_upload(mbps: float) -> None:
    with pytest.raises(EnergyError):
        RADIOS["lte"].upload_mj(1, mbps)
    with pytest.raises(EnergyError):
        RADIOS["lte"].upload_mj(-1, 1.0)


@pytest.mark.parametrize(
    ("link", "radio"),
    [
        ("lte", "lte"),
        ("3G", "3g"),
        ("wifi", "wifi"),
        ("ethernet", "none"),
        ("5.85mbps,50ms", "lte"),
        ("train-ride", "lte"),
    ],
)
def test_radio_of_a_link(link: str, radio: str) -> None:
    assert radio_for(link).name == radio


def test_every_named_link_has_a_radio_and_every_radio_a_source() -> None:
    assert {radio_for(name).name for name in NAMED} == set(RADIOS)
    assert all(radio.source and radio.name == name for name, radio in RADIOS.items())
