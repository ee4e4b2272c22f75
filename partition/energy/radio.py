"""What a radio draws while it sends: a model, never a measurement.

Power is a straight line in the rates, P = up * (Mbit/s up) + down * (Mbit/s down) + base (Huang et
al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks", MobiSys
2012). The handset was of 2012: the ratios between radios and rates tell more than the joules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """A radio's power in milliwatts: per Mbit/s each way, and `base_mw` for being active at all.

    `tail_s` is how long it stays active after the last byte, None where it is not known.
    """

    name: str
    up_mw_per_mbps: float
    down_mw_per_mbps: float
    base_mw: float
    tail_s: float | None
    source: str

    def power_mw(self, up_mbps: float = 0, down_mbps: float = 0) -> float:
        """Milliwatts while the radio carries these rates."""
        return self.up_mw_per_mbps * up_mbps + self.down_mw_per_mbps * down_mbps + self.base_mw


# Of these figures LTE's uplink and tail were checked against the paper's text; the others are
# quoted from its table without such a check, which `source` says.
_PAPER = "Huang et al., MobiSys 2012"
_UNCHECKED = f"{_PAPER} (figures not checked again)"
NO_RADIO = Radio(
    name="none",
    up_mw_per_mbps=0,
    down_mw_per_mbps=0,
    base_mw=0,
    tail_s=0,
    source="a wired link, whose energy is not modelled",
)
RADIOS: dict[str, Radio] = {
    radio.name: radio
    for radio in (
        Radio(
            name="lte",
            up_mw_per_mbps=438.39,
            down_mw_per_mbps=51.97,
            base_mw=1288.04,
            tail_s=11.6,
            source=f"{_PAPER} (downlink and base not checked again)",
        ),
        Radio(
            name="3g",
            up_mw_per_mbps=868.98,
            down_mw_per_mbps=122.12,
            base_mw=817.88,
            tail_s=None,
            source=_UNCHECKED,
        ),
        Radio(
            name="wifi",
            up_mw_per_mbps=283.17,
            down_mw_per_mbps=137.01,
            base_mw=132.86,
            tail_s=None,
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
