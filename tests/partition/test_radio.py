"""Which radio is behind a link."""

from __future__ import annotations

import pytest
from splitpoint.partition.energy.radio import RADIOS, radio_for
from splitpoint.partition.plan.link import NAMED


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
