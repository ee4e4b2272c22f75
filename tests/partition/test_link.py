"""Links by name, by figures, by trace and by probing."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from splitpoint.partition.errors import LinkError
from splitpoint.partition.plan.link import TRACE_STARTS, Capacity, Link, link_from_probe, parse_link


def test_names_and_figures() -> None:
    assert parse_link("LTE").uplink_mbps == 5.85
    link = parse_link("2.5mbps, 40ms")
    assert (link.uplink_mbps, link.round_trip_ms) == (2.5, 40)


@pytest.mark.parametrize(
    "text",
    [
        "5g",
        "0mbps",
        "0mbps,1ms",
        "0.000mbps",
        "-1mbps",
        "nanmbps",
        "1mbps,-1ms",
        "mbps",
        "none.csv",
        "",
    ],
)
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(LinkError) as caught:
        parse_link(text)
    assert caught.value.remedy


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
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "seconds,uplink_mbps\n0,inf\n1,2\n",
        "seconds,uplink_mbps\n-inf,1\n1,2\n",
        "seconds,uplink_mbps\nnan,1\n1,2\n",
        "seconds,uplink_mbps\n0,1e308\n1,1e308\n2,1e308\n",
    ],
)
def test_trace_of_what_no_link_has(tmp_path: Path, text: str) -> None:
    with pytest.raises(LinkError, match="trace") as caught:
        parse_link(str(trace(tmp_path, text)))
    assert caught.value.remedy


def test_trace_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"seconds,uplink_mbps\n0,1\n\xff\xfe,2\n")
    with pytest.raises(LinkError, match="is no link trace"):
        parse_link(str(path))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LinkError, match=r"cannot read the trace .*: give a CSV"):
        parse_link(str(tmp_path / "folder.csv"))


def test_given_figures_must_be_finite() -> None:
    for text in ("9" * 400 + "mbps", "1mbps," + "9" * 400 + "ms"):
        with pytest.raises(LinkError):
            parse_link(text)


def test_trace_may_start_at_any_time_and_have_gaps(tmp_path: Path) -> None:
    """A step lasts until the next row, however far away that is; the last as long as its elder."""
    link = parse_link(str(trace(tmp_path, "seconds,uplink_mbps\n100,8\n101,2\n104,5\n")))
    assert link.trace == ((0, 8), (1, 2), (4, 5))
    assert Capacity(link).period_s == 7
    assert link.uplink_mbps == pytest.approx((1 * 8 + 3 * 2 + 3 * 5) / 7)
    assert Capacity(link).finish_s(1, 750_000) == pytest.approx(4)
    assert Capacity(link).finish_s(7, 1_000_000) == pytest.approx(8)  # it begins again


def constant(mbps: float) -> Link:
    return Link(name="given", uplink_mbps=mbps, round_trip_ms=10, source="given")


def test_upload_at_a_given_rate() -> None:
    assert constant(8).upload_ms([0, 1000, 250_000]).tolist() == [[0, 1, 250]]
    assert constant(0.5).upload_ms(1000).tolist() == [[16]]


def test_upload_at_probed_rates() -> None:
    link = Link(
        name="x", uplink_mbps=4, round_trip_ms=10, source="probed", probed_mbps=(1.0, 4.0, 8.0)
    )
    assert link.upload_ms([1000, 2000]).tolist() == [[8, 16], [2, 4], [1, 2]]


# 8 Mbit/s for a second, nothing for a second, 4 Mbit/s for a second, and again.
STANDSTILL = Link(
    name="t",
    uplink_mbps=4,
    round_trip_ms=10,
    source="t",
    trace=((0.0, 8.0), (1.0, 0.0), (2.0, 4.0)),
)


def walked_ms(link: Link, start_s: float, nbytes: float) -> float:
    """The same by walking through the trace in steps of a tenth of a millisecond."""
    tick_s, now = 1e-4, start_s
    starts = [at for at, _ in link.trace]
    period = 2 * starts[-1] - starts[-2]
    while nbytes > 0:
        at = now % period + 1e-7
        nbytes -= [rate for start, rate in link.trace if start <= at][-1] * 1e6 / 8 * tick_s
        now += tick_s
    return 1e3 * (now - start_s)


def test_upload_through_a_trace() -> None:
    """Entered at evenly spaced moments: a third of them falls into the standstill."""
    sizes = np.array([1_000.0, 500_000.0, 2_500_000.0])
    found = STANDSTILL.upload_ms(sizes)
    assert found.shape == (TRACE_STARTS, 3)
    period_s = Capacity(STANDSTILL).period_s
    assert period_s == 3
    for row in range(0, TRACE_STARTS, 29):
        start_s = row * period_s / TRACE_STARTS
        for size, ms in zip(sizes, found[row], strict=True):
            assert ms == pytest.approx(walked_ms(STANDSTILL, start_s, size), abs=0.3)
    small = found[:, 0]
    assert small.min() == pytest.approx(1)
    assert small.max() == pytest.approx(1000 + 2, abs=15)
    assert ((small > 3).sum() / TRACE_STARTS) == pytest.approx(1 / 3, abs=0.01)


def test_nothing_takes_no_time_even_in_a_standstill() -> None:
    assert (STANDSTILL.upload_ms([0.0]) == 0).all()


def test_upload_takes_longer_the_larger() -> None:
    rng = random.Random(0)
    for _ in range(20):
        at, steps = 0.0, []
        for _ in range(rng.randint(2, 6)):
            steps.append((at, rng.choice([0.0, 0.3, 2.0, 40.0])))
            at += rng.uniform(0.01, 2)
        steps[0] = (0.0, 1.0)
        link = Link(name="t", uplink_mbps=1, round_trip_ms=1, source="t", trace=tuple(steps))
        found = link.upload_ms(np.array([1.0, 500.0, 20_000.0, 100_000.0]))
        assert (np.diff(found, axis=1) > 0).all()
        period_s = Capacity(link).period_s
        widths = np.diff([*(at for at, _ in steps), period_s])
        a_period = sum(w * rate * 1e6 / 8 for w, (_, rate) in zip(widths, steps, strict=True))
        for ms in link.upload_ms((1 - 1e-9) * a_period)[:, 0]:  # one period carries it
            assert ms <= 1e3 * period_s * (1 + 1e-6)


def test_percentiles_of_the_rate() -> None:
    assert constant(5).percentile_mbps(1) == constant(5).percentile_mbps(99) == 5
    probed = Link(
        name="x", uplink_mbps=4, round_trip_ms=1, source="x", probed_mbps=(1.0, 2.0, 4.0, 6.0, 8.0)
    )
    assert [probed.percentile_mbps(p) for p in (0, 25, 50, 100)] == [1, 2, 4, 8]
    # By time, not by rows: nine seconds of ten at 2 Mbit/s.
    link = Link(
        name="t",
        uplink_mbps=2.6,
        round_trip_ms=1,
        source="t",
        trace=((0.0, 2.0), (8.0, 8.0), (9.0, 2.0)),
    )
    assert [link.percentile_mbps(p) for p in (1, 50, 89, 91, 100)] == [2, 2, 2, 8, 8]
    assert STANDSTILL.percentile_mbps(20) == 0


def test_link_from_probes() -> None:
    """The round trip is the empty probes' median; small probes say nothing about the rate."""
    empty = [(0, ms) for ms in (19, 20, 500, 20, 21)]
    link = link_from_probe("host", [*empty, (1000, 300), (100_000, 120), (80_000, 100)])
    assert link.round_trip_ms == 20
    assert link.probed_mbps == pytest.approx((8, 8))
    assert link.uplink_mbps == pytest.approx(8)
    assert link.name == "host"
    assert "2 messages" in link.source
    uneven = link_from_probe("host", [(0, 0.0), *((1000, ms) for ms in (8, 1, 2))])
    assert uneven.probed_mbps == pytest.approx((1, 4, 8))
    assert uneven.uplink_mbps == pytest.approx(4)
    assert uneven.upload_ms(1000)[:, 0].tolist() == pytest.approx([8, 2, 1])


@pytest.mark.parametrize(
    "probes",
    [
        [],
        [(0, 10.0)],
        [(1000, 10.0)],
        [(0, 10.0), (1000, 10.0)],
        [(0, 10.0), (1000, 3.0)],
        [(0, 10.0), (1000, math.nan)],
        [(0, math.nan), (1000, 10.0)],
    ],
)
def test_probes_that_show_no_rate(probes: list[tuple[int, float]]) -> None:
    with pytest.raises(LinkError):
        link_from_probe("host", probes)


def test_a_link_too_fast_to_probe_says_what_to_do() -> None:
    with pytest.raises(LinkError, match="1000mbps,1ms"):
        link_from_probe("host", [(0, 1.0), (1 << 20, 0.9)])
    assert parse_link("1000mbps,1ms").uplink_mbps == 1000
