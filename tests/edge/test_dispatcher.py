"""Which way a frame takes, from what is known when it comes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dispatchers import ROUND_TRIP_MS, dispatcher_of, fast_seen, way
from measured_table import measured_table
from splitpoint.edge.dispatch.arms import MOST_ARMS
from splitpoint.edge.dispatch.dispatcher import Dispatcher


def test_a_link_that_answers_nothing_for_seconds_has_no_rate() -> None:
    dispatcher = dispatcher_of(8, 10.0)
    fast_seen(dispatcher, 10.0)
    assert dispatcher.rate(0.0) == pytest.approx(125e4)
    dispatcher.in_hand.send_probe(0.0, -1, 1e4)  # which takes 8 ms
    assert dispatcher.rate(1.0) == pytest.approx(125e4)  # late, but that happens
    assert dispatcher.rate(2.5) == 0
    dispatcher.answered(2.6, -1, 0.0)
    assert dispatcher.rate(2.6) > 0


def test_a_slow_link_is_not_dead_for_a_large_frame() -> None:
    dispatcher = dispatcher_of(8, 0.1)
    fast_seen(dispatcher, 0.1)
    dispatcher.in_hand.send_probe(0.0, -1, 125e2)  # which takes a second
    assert dispatcher.rate(3.5) > 0
    assert dispatcher.rate(4.5) == 0


def test_arms_are_few_and_none_beats_another() -> None:
    arms = dispatcher_of(8, 1.0).arms
    assert 3 <= len(arms) <= MOST_ARMS
    sizes = np.stack([arms.edge_s, arms.edge_s + arms.encode_s, arms.nbytes], 1)
    for one in sizes:
        assert not any((other <= one).all() and (other < one).any() for other in sizes)
    assert (arms.nbytes == 0).sum() == 1
    assert arms.rest_s[arms.nbytes == 0] == pytest.approx(0.0)


def test_a_fast_link_takes_the_picture_and_a_dead_one_nothing() -> None:
    fast = dispatcher_of(8, 50.0)
    fast_seen(fast, 50.0)
    assert way(fast, fast.choose(0.0, 1)).startswith("0:")
    slow = dispatcher_of(8, 0.002)
    fast_seen(slow, 0.002)
    assert way(slow, slow.choose(0.0, 1)) == "7:none"


def test_what_is_not_usable_is_not_taken() -> None:
    fast = dispatcher_of(8, 50.0)
    fast_seen(fast, 50.0)
    fast.usable = fast.arms.nbytes == 0
    assert way(fast, fast.choose(0.0, 1)) == "7:none"


def test_a_frame_that_no_way_has_in_time_is_let_go() -> None:
    """Nothing is done in vain: the device is free for the next."""
    slow = dispatcher_of(64, 0.01, budget_s=0.1)
    fast_seen(slow, 0.01)
    assert slow.choose(0.0, 1) is None
    assert slow.in_hand.device_free_s(0.0) == 0.0


def test_what_waits_goes_where_it_is_done_first() -> None:
    """Files: as the device fills up, frames go to the cloud, and the other way round."""
    files = dispatcher_of(8, 2.0, budget_s=10.0)
    fast_seen(files, 2.0)
    ways = [way(files, files.choose_waiting(0.0, number)) for number in range(6)]
    assert len(set(ways)) >= 2
    assert "let go" not in ways


def test_an_objective_is_followed_among_what_is_in_time() -> None:
    table = measured_table(8)
    server = np.where(table.sends > 0, 10.0 - table.boundary, 0.0)
    cheap = dispatcher_of(8, 50.0, budget_s=10.0, prices=server)
    fast_seen(cheap, 50.0)
    assert way(cheap, cheap.choose_waiting(0.0, 1)) == "7:none"
    dear = dispatcher_of(8, 50.0, budget_s=10.0, prices=10.0 - server)
    fast_seen(dear, 50.0)
    assert way(dear, dear.choose_waiting(0.0, 1)).startswith("0:")


def overdue(slowdown: float, fps: float) -> tuple[Dispatcher, float]:
    """One frame, number 1, was sent as JPEG and is not answered; now a finish is barely in time."""
    some = dispatcher_of(slowdown, 2.0)
    fast_seen(some, 2.0)
    jpeg = some.arms.nbytes == some.arms.nbytes.max()
    some.usable = jpeg
    some.choose(-1 / fps, 0)
    some.in_hand.end(0)
    arm = some.choose(0.0, 1)
    assert arm is not None
    some.usable = np.ones(len(jpeg), bool)
    some.in_hand.send(0.0, 1, 18_875.0)
    return some, 0.3 - some.rest_s(arm) - 0.002


def test_an_idle_device_finishes_what_is_overdue() -> None:
    some, now_s = overdue(4, 2)
    assert some.worth_finishing(now_s, 1)
    some.finish_begins(now_s, 1)
    assert not some.worth_finishing(now_s, 1)
    assert some.in_hand.device_free_s(now_s) > now_s


def test_a_finish_must_be_worth_what_it_takes_from_frames_behind_it() -> None:
    """Two intervals of computing save one frame: the device has two others to begin with."""
    some, now_s = overdue(28, 30)
    assert some.rest_s(0) < 0.29
    some.uplink.sent(now_s, 100.0, 10.0)  # all but dead
    assert not some.worth_finishing(now_s, 1)


def test_a_finish_that_would_be_late_is_not_begun() -> None:
    some = dispatcher_of(8, 2.0)
    arm = some.choose(0.0, 1)
    assert arm is not None
    assert not some.worth_finishing(0.299, 1)
    some.can_finish = False
    assert not some.worth_finishing(0.1, 1)


def test_unknown_frames_are_nothing_to_it() -> None:
    some = dispatcher_of(8, 2.0)
    some.answered(1.0, 99, 0.0)
    some.in_hand.computed(1.0, 99)
    some.in_hand.send(1.0, 99, 10.0)
    some.in_hand.end(99)
    some.in_hand.forget(99)
    some.finish_begins(1.0, 99)
    assert some.in_hand.link_is_idle
    assert not some.worth_finishing(1.0, 99)
    assert some.worth_sending(1.0, 99)


def test_nothing_is_kept_of_frames_that_have_ended() -> None:
    some = dispatcher_of(8, 5.0)
    fast_seen(some, 5.0)
    for number in range(500):
        now_s = 0.1 * number
        arm = some.choose(now_s, number)
        if arm is not None and some.arms.nbytes[arm] > 0:
            some.in_hand.computed(now_s, number)
            some.in_hand.send(now_s, number, 1000.0)
        some.in_hand.computed(now_s + 0.05, number)
        some.in_hand.end(number)
        if number % 50 == 49:
            some.answered(now_s + 0.09, number, 0.0)  # those before it have left, too
    assert sum(some.in_hand.get(number) is not None for number in range(500)) <= 50


@pytest.mark.parametrize("wait_ms", [1e6, 1e300])
def test_a_worker_that_claims_to_be_busy_gets_nothing(wait_ms: float) -> None:
    some = dispatcher_of(8, 50.0)
    fast_seen(some, 50.0)
    some.conditions.load(0.0, wait_ms * (some.arms.nbytes > 0), 1.0)
    assert way(some, some.choose(0.0, 1)) == "7:none"
    assert math.isfinite(some.in_hand.device_free_s(0.0))


def test_a_frame_of_many_samples_takes_so_many_times_as_long() -> None:
    files = dispatcher_of(8, 0.01, budget_s=60.0)
    fast_seen(files, 0.01)
    assert way(files, files.choose_waiting(0.0, 1, samples=4)) == "7:none"
    alone_s = float(files.arms.edge_s[files.arms.nbytes == 0][0])
    assert files.in_hand.device_free_s(0.0) == pytest.approx(4 * alone_s)


def test_the_fastest_transfers_count() -> None:
    some = dispatcher_of(8, 1.0)
    some.in_hand.send_probe(10.0, -1, 8e3)
    some.answered(10.0 + 0.9e-3 * ROUND_TRIP_MS, -1, 0.0)  # sooner than an empty message
    assert some.uplink.seen_s > 10
    assert some.uplink.level > 125e3


def test_a_worker_that_claims_to_have_had_a_frame_before_it_was_sent_tells_nothing() -> None:
    some = dispatcher_of(8, 1.0)
    some.in_hand.send_probe(10.0, -1, 8e3)
    some.answered(10.1, -1, 0.1)
    assert some.uplink.seen_s < 0
    assert some.in_hand.link_is_idle


def test_what_was_overtaken_is_not_under_way() -> None:
    """Bytes leave in order: an answer to a later frame says that the earlier ones have left."""
    some = dispatcher_of(8, 5.0)
    fast_seen(some, 5.0)
    some.usable = some.arms.nbytes == some.arms.nbytes.max()
    for number in (1, 2):
        some.choose(0.1 * number, number)
        some.in_hand.send(0.1 * number, number, 1000.0)
    some.in_hand.end(1)  # nobody waits for it any more
    assert not some.in_hand.link_is_idle
    some.answered(0.3, 2, 0.0)
    assert some.in_hand.link_is_idle
    assert some.in_hand.get(1) is None


def test_a_device_that_was_slow_once_is_tried_again() -> None:
    """While other work made it slow, it was learned that all would be late."""
    slow = dispatcher_of(8, 0.01)
    for _ in range(150):
        slow.conditions.edge_took(1000.0, 80.0)
    now_s, key, ways = 0.0, 0, []
    while len(ways) < 80:
        now_s, key = now_s + 0.1, key + 1
        ways.append(way(slow, slow.choose(now_s, key)))
        slow.in_hand.computed(now_s, key)
        slow.in_hand.end(key)
    assert ways[0] == "let go"
    assert ways[-1] != "let go"


def test_encoding_alone_says_nothing_of_how_fast_the_device_computes() -> None:
    dispatcher = dispatcher_of(8, 10.0)
    for _ in range(50):
        dispatcher.conditions.edge_took(0.9, 0.2)  # a call, and a way to another thread
    assert dispatcher.conditions.edge_factor == pytest.approx(1)


def test_a_pause_is_no_gap_between_frames() -> None:
    dispatcher = dispatcher_of(8, 10.0)
    for step in range(20):
        dispatcher.choose(0.1 * step, step)
    dispatcher.choose(3600.0, 99)
    assert dispatcher.interval_s is not None
    assert dispatcher.interval_s < 0.2


def test_prices_follow_how_often_frames_come() -> None:
    """Ten frames a second, then a hundred: what the device's time is worth changes at once."""
    some = dispatcher_of(8, 1.0)
    fast_seen(some, 1.0)
    for number in range(6):
        some.choose(0.1 * number, number)
    before = some._prices
    some.choose(0.6, 6)
    assert some._prices is before  # as often as before
    for number in range(1, 6):
        some.choose(0.6 + 0.01 * number, 6 + number)
    assert some._prices.device > 1.2 * before.device
