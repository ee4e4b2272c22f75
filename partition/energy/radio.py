"""What a radio draws while it sends: a model, never a measurement.

Power is a straight line in the rate, P = up * (Mbit/s up) + base (Huang et al., "A Close
Examination of Performance and Power Characteristics of 4G LTE Networks", MobiSys 2012); receiving
is left out. The handset was of 2012: the ratios between radios and rates tell more than the joules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """A radio's power in milliwatts: per Mbit/s sent, and `base_mw` for being active at all."""

    name: str
    up_mw_per_mbps: float
    base_mw: float
    source: str


# Of these figures LTE's uplink was checked against the paper's text; the others are
# quoted from its table without such a check, which `source` says.
_PAPER = "Huang et al., MobiSys 2012"
_UNCHECKED = f"{_PAPER} (figures not checked again)"
NO_RADIO = Radio(
    name="none",
    up_mw_per_mbps=0,
    base_mw=0,
    source="a wired link, whose energy is not modelled",
)
RADIOS: dict[str, Radio] = {
    radio.name: radio
    for radio in (
        Radio(
            name="lte",
            up_mw_per_mbps=438.39,
            base_mw=1288.04,
            source=f"{_PAPER} (base not checked again)",
        ),
        Radio(
            name="3g",
            up_mw_per_mbps=868.98,
            base_mw=817.88,
            source=_UNCHECKED,
        ),
        Radio(
            name="wifi",
            up_mw_per_mbps=283.17,
            base_mw=132.86,
            source=_UNCHECKED,
        ),
        NO_RADIO,
    )
}
_BY_LINK = {"ethernet": "none"}


def radio_for(link_name: str) -> Radio:
    """The radio behind a link of this name: lte, 3g, wifi, or none for ethernet.

    Any other link, a rate or a recorded trace, is taken to be LTE, the radio of most devices that
    have a slow uplink; its milliwatts are of the order of 3G's and several times those of Wi-Fi.
    """
    name = link_name.lower()
    return RADIOS.get(_BY_LINK.get(name, name), RADIOS["lte"])
