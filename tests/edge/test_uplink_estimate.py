"""The uplink's rate, from transfers: units, what tells nothing, what is forgotten, and doubt."""

from __future__ import annotations

import math
import pickle

import pytest
from splitpoint.edge.dispatch.uplink_estimate import (
    APART,
    CHANGED,
    DOUBT_S,
    HALF_LIFE_S,
    MOST_DOUBT,
    SAMPLES,
    SURE_S,
    UplinkEstimate,
)


def sent_at(estimate: UplinkEstimate, mbps: float, now_s: float, ms: float = 20.0) -> None:
    """A transfer of `ms` at that rate."""
    estimate.sent(now_s, mbps * ms * 125, ms)


def filled(*rates: float, ms: float = 20.0, every_s: float = 0.0) -> UplinkEstimate:
    estimate = UplinkEstimate()
    for number, mbps in enumerate(rates):
        sent_at(estimate, mbps, number * every_s, ms)
    return estimate


def test_without_a_sample_there_is_no_rate() -> None:
    estimate = UplinkEstimate()
    assert estimate.mbps(0.0, 50) is None
    assert estimate.spread(0.0, (10, 50, 90)) == []
    assert estimate.largest_since(-math.inf) == 0


def test_bytes_and_milliseconds_become_megabits_a_second() -> None:
    estimate = UplinkEstimate()
    estimate.sent(0.0, 125_000, 100.0)
    assert estimate.mbps(0.0, 50) == pytest.approx(10.0)


def test_percentiles_are_of_the_rates_that_were_seen() -> None:
    estimate = filled(*range(10, 20))
    low, middle, high = estimate.spread(0.0, (10, 50, 90))
    assert (low, middle, high) == (10, 14, 18)
    assert estimate.mbps(0.0, 100) == 19


def test_a_short_transfer_weighs_less_than_a_long_one() -> None:
    estimate = filled(10.0, 10.0)
    for _ in range(3):
        sent_at(estimate, 9.0, 0.0, ms=1.5)
    assert estimate.mbps(0.0, 40) == 10.0
    assert estimate.mbps(0.0, 10) == 9.0


def test_the_newer_weighs_more() -> None:
    estimate = filled(10.0, 10.0, 10.0)
    sent_at(estimate, 12.0, 4 * HALF_LIFE_S)
    assert estimate.mbps(4 * HALF_LIFE_S, 50) == 12.0


def test_what_is_too_short_to_tell_shows_a_least_rate_and_no_more() -> None:
    estimate = filled(100.0)
    estimate.sent(0.0, 1000, 0.01)  # 8 Mbit/s at least: known already
    assert estimate.spread(0.0, (0, 100)) == [100.0, 100.0]
    estimate.sent(0.0, 50_000, 0.01)  # 400 Mbit/s at least
    assert estimate.mbps(0.0, 100) == pytest.approx(400.0)
    first = UplinkEstimate()
    first.sent(0.0, 1000, 0.0)
    assert first.mbps(0.0, 50) == pytest.approx(8.0)


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_another_link_is_believed_after_a_few_transfers(factor: float) -> None:
    estimate = filled(*[10.0] * SAMPLES)
    for number in range(CHANGED):
        assert estimate.mbps(0.0, 50) == 10.0, number
        sent_at(estimate, 10.0 * factor, 0.0)
    assert estimate.spread(0.0, (1, 50, 100)) == [10.0 * factor] * 3


def test_one_transfer_in_between_keeps_what_was_known() -> None:
    estimate = filled(*[10.0] * SAMPLES)
    for mbps in (2.0, 2.0, 10.0, 2.0, 2.0):
        sent_at(estimate, mbps, 0.0)
    assert estimate.mbps(0.0, 50) == 10.0
    assert estimate.mbps(0.0, 10) == 2.0


def test_a_little_slower_is_no_other_link() -> None:
    estimate = filled(*[10.0] * SAMPLES)
    for _ in range(CHANGED):
        sent_at(estimate, 10.0 / APART * 1.01, 0.0)
    assert estimate.mbps(0.0, 100) == 10.0


def test_it_forgets_and_does_not_grow() -> None:
    estimate = filled(*[10.0] * SAMPLES)
    size = len(pickle.dumps(estimate))
    for number in range(1000):
        sent_at(estimate, 10.0 + number % 3, float(number))
    assert len(pickle.dumps(estimate)) < 2 * size
    for _ in range(SAMPLES):
        sent_at(estimate, 13.0, 1000.0)
    assert estimate.mbps(1000.0, 0) == 13.0


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_one_probe_beyond_all_that_was_seen_is_enough(factor: float) -> None:
    estimate = filled(9.0, 10.0, 11.0)
    estimate.probed(1.0, 10.0 * factor * 20 * 125, 20.0)
    assert estimate.spread(1.0, (1, 99)) == pytest.approx([10.0 * factor] * 2)


def test_a_probe_among_what_was_seen_is_one_sample() -> None:
    estimate = filled(9.0, 10.0, 11.0)
    estimate.probed(0.0, 10.5 * 20 * 125, 20.0)
    assert estimate.mbps(0.0, 1) == 9.0
    assert estimate.mbps(0.0, 100) == 11.0


def test_a_frame_without_an_answer_bounds_the_rate() -> None:
    estimate = filled(*[10.0] * 4)
    estimate.unanswered(0.0, 125_000, 1000.0)  # 1 Mbit/s at most
    assert estimate.mbps(0.0, 10) == pytest.approx(1.0)
    assert estimate.mbps(0.0, 50) == 10.0
    estimate.unanswered(0.0, 125_000, 50.0)  # 20 Mbit/s at most: says nothing
    assert estimate.mbps(0.0, 100) == 10.0
    first = UplinkEstimate()
    first.unanswered(0.0, 125_000, 1000.0)
    assert first.mbps(0.0, 50) == pytest.approx(1.0)


def test_silence_becomes_doubt_on_both_sides_of_the_middle() -> None:
    estimate = filled(8.0, 10.0, 12.0)
    known = estimate.spread(0.0, (20, 50, 80))
    assert estimate.spread(SURE_S, (20, 50, 80)) == known
    low, middle, high = estimate.spread(SURE_S + DOUBT_S, (20, 50, 80))
    assert (low, middle, high) == pytest.approx((known[0] / 2, known[1], known[2] * 2))
    low, middle, high = estimate.spread(1e6, (20, 50, 80))
    assert (low, middle, high) == pytest.approx(
        (known[0] / MOST_DOUBT, known[1], known[2] * MOST_DOUBT)
    )
    sent_at(estimate, 10.0, 1e6)
    assert estimate.mbps(1e6, 20) == 10.0  # and what was before counts no more


def test_the_largest_of_late() -> None:
    estimate = filled(10.0, every_s=1.0)
    sent_at(estimate, 10.0, 1.0, ms=5.0)
    assert estimate.largest_since(-1.0) == 10.0 * 20 * 125
    assert estimate.largest_since(0.5) == 10.0 * 5 * 125
    assert estimate.largest_since(1.0) == 0
