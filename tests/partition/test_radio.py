"""The radio model, worked out by hand."""

from __future__ import annotations

import pytest
from splitpoint.partition.energy.radio import RADIOS, radio_for
from splitpoint.partition.plan.link import NAMED


def test_power() -> None:
    lte = RADIOS["lte"]
    assert lte.power_mw() == pytest.approx(1288.04)
    assert lte.power_mw(up_mbps=2) == pytest.approx(2164.82)
    assert lte.power_mw(up_mbps=2, down_mbps=10) == pytest.approx(2684.52)


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
