"""What is known of an uplink, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from splitpoint.edge.dispatch.uplink import Ahead, Scenarios, Uplink

FREE = Ahead(since_s=10.0, seen_s=10.0)


def seen(rates: list[float], every_s: float = 0.1, nbytes: float = 10_000.0) -> Uplink:
    """An uplink after such rates in bytes/s, the last of them at 10 s."""
    uplink = Uplink(rates[0])
    for back, rate in zip(range(len(rates) - 1, -1, -1), rates, strict=True):
        uplink.sent(10.0 - back * every_s, nbytes, nbytes / rate)
    return uplink


def chance(link: Scenarios, nbytes: float, by_s: float) -> float:
    return float(link.weight @ (link.free_s + nbytes / link.rate <= by_s))


def test_weights_add_up_and_rates_are_positive() -> None:
    link = seen([1e5, 2e5, 5e4]).scenarios(10.0, FREE)
    assert link.weight.sum() == pytest.approx(1)
    assert (link.rate > 0).all()
    assert (link.free_s >= 10.0).all()


def test_a_steady_link_is_known_well() -> None:
    link = seen([1e5] * 40).scenarios(10.0, FREE)
    assert chance(link, 10_000, 10.15) > 0.8
    assert chance(link, 10_000, 10.05) < 0.2


def test_what_took_no_time_shows_at_least_a_rate() -> None:
    for took_s in (0.0, 0.0004):
        uplink = seen([1e5] * 40)
        for step in range(20):
            uplink.sent(10.0 + 0.1 * step, 10_000, took_s)
        assert uplink.level >= 1e7  # it was gone within a millisecond
        assert uplink.mean > 1e6
    fast = seen([1e8] * 40)
    fast.sent(10.1, 100, 0.0)  # so was that, and it says nothing
    assert fast.level == pytest.approx(1e8)


def test_stalls_are_not_forgotten_within_seconds() -> None:
    """Nine fast seconds after one that stood still: the next may stand still again."""
    stalls = ([1e5] * 9 + [2e3]) * 8 + [1e5] * 9
    steady = [1e5] * len(stalls)
    by_s, nbytes = 10.5, 10_000
    remembers = chance(seen(stalls).scenarios(10.0, FREE), nbytes, by_s)
    assert remembers < chance(seen(steady).scenarios(10.0, FREE), nbytes, by_s)
    assert remembers > 0.5


def test_after_a_night_of_silence_it_goes_on() -> None:
    uplink = seen([1e5, 2e5] * 40)
    for now_s in (10.0 + 12 * 3600, 10.0 + 1e6):
        ahead = Ahead(since_s=now_s, seen_s=now_s)
        link = uplink.scenarios(now_s, ahead)
        assert link.weight.sum() == pytest.approx(1)
        uplink.sent(now_s, 10_000, 0.1)
        assert uplink.scenarios(now_s, ahead).weight.sum() == pytest.approx(1)


def test_what_is_overdue_makes_all_that_comes_later_unlikely() -> None:
    uplink = seen([1e5] * 40)
    chances = []
    for overdue_s in (0.0, 0.2, 1.0, 5.0):
        ahead = Ahead(10_000, 10_000, since_s=10.0, seen_s=10.0 + overdue_s)
        now_s = 10.0 + overdue_s
        chances.append(chance(uplink.scenarios(now_s, ahead), 10_000, now_s + 0.25))
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.7
    assert chances[1] > 0.05  # rates vary: it may be through any moment
    assert chances[3] < 0.1


def test_what_is_ahead_delays() -> None:
    uplink = seen([1e5] * 40)
    ahead = Ahead(30_000, 10_000, since_s=10.0, seen_s=10.0)
    link = uplink.scenarios(10.0, ahead)
    assert np.median(link.free_s) == pytest.approx(10.3, abs=0.05)


def test_a_faster_link_is_believed_within_a_second() -> None:
    uplink = seen([2e4] * 40)
    for step in range(1, 11):
        uplink.sent(10.0 + 0.1 * step, 10_000, 10_000 / 2e5)
    assert uplink.level == pytest.approx(2e5)
    assert chance(uplink.scenarios(11.0, Ahead(since_s=11.0, seen_s=11.0)), 10_000, 11.1) > 0.6


@pytest.mark.parametrize("took_s", [0.0, -1.0, 1e-9])
def test_a_transfer_that_took_no_time_does_not_make_the_link_endless(took_s: float) -> None:
    uplink = Uplink(1e5)
    uplink.sent(10.0, 1000.0, took_s)
    assert uplink.level <= 1000.0 / 1e-3 + 1
    assert np.isfinite(uplink.scenarios(10.0, FREE).rate).all()


def test_nothing_seen_is_nothing_known_but_the_first_rate() -> None:
    link = Uplink(1e5).scenarios(0.0, Ahead())
    assert link.rate.min() < 1e5 < link.rate.max()
