"""Links by name, by figures and by trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from splitpoint.partition.errors import LinkError
from splitpoint.partition.link import Capacity, parse_link


def test_names_and_figures() -> None:
    assert parse_link("LTE").uplink_mbps == 5.85
    link = parse_link("2.5mbps, 40ms")
    assert (link.uplink_mbps, link.round_trip_ms) == (2.5, 40)


@pytest.mark.parametrize("text", ["5g", "0mbps,1ms", "-1mbps", "mbps", "none.csv", ""])
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(LinkError):
        parse_link(text)


def trace(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_trace(tmp_path: Path) -> None:
    path = trace(tmp_path, "seconds,uplink_mbps\n0,8\n1,0\n2,4\n")
    link = parse_link(str(path))
    assert link.uplink_mbps == pytest.approx(4)
    capacity = Capacity(link)  # 1 MB/s for 1 s, nothing for 1 s, 0.5 MB/s for 1 s, and again
    assert capacity.finish_s(0, 500_000) == pytest.approx(0.5)
    assert capacity.finish_s(0.5, 750_000) == pytest.approx(2.5)
    assert capacity.finish_s(1.2, 100_000) == pytest.approx(2.2)
    assert capacity.finish_s(2.5, 750_000) == pytest.approx(3.5)
    assert capacity.finish_s(0, 3_000_000) == pytest.approx(6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seconds,uplink_mbps\n0,1\n",
        "a,b\n0,1\n1,2\n",
        "seconds,uplink_mbps\n0,1\n0,2\n",
        "seconds,uplink_mbps\n0,1\n1,-2\n",
        "seconds,uplink_mbps\n0,-1\n1,2\n",
        "seconds,uplink_mbps\n0,nan\n1,2\n",
        "seconds,uplink_mbps\n0,1\n1,inf\n",
        "seconds,uplink_mbps\n0,0\n1,0\n",
        "seconds,uplink_mbps\n0,1\n1\n",
        "seconds,uplink_mbps\n0,x\n1,2\n",
    ],
)
def test_damaged_trace(tmp_path: Path, text: str) -> None:
    with pytest.raises(LinkError) as caught:
        parse_link(str(trace(tmp_path, text)))
    assert "trace" in str(caught.value)
