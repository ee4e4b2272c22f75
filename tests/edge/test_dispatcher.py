"""Which way a frame takes, from what is known when it comes."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
from measured_table import SEGMENTS_MS, all_allowed, measured_table
from split_tables import manifest_of
from splitpoint.edge.dispatch.arms import MOST_ARMS, Arms
from splitpoint.edge.dispatch.auto_plan import AutoPlan
from splitpoint.edge.dispatch.conditions import Conditions
from splitpoint.edge.dispatch.dispatcher import Dispatcher
from splitpoint.edge.dispatch.first_plan import FirstPlan
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Objective

ROUND_TRIP_MS = 20.0


def dispatcher_of(
    slowdown: float,
    mbps: float,
    budget_s: float = 0.3,
    prices: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> Dispatcher:
    table = measured_table(slowdown)
    arms = Arms.of(
        table,
        all_allowed(table) if allowed is None else allowed,
        np.zeros(len(table)) if prices is None else prices,
    )
    return Dispatcher(arms, budget_s, Conditions(ROUND_TRIP_MS), 125e3 * mbps)


def names(dispatcher: Dispatcher) -> list[str]:
    table = measured_table()
    return [f"{table.boundary[i]}:{table.codec[i]}" for i in dispatcher.arms.index]


def way(dispatcher: Dispatcher, arm: int | None) -> str:
    return "let go" if arm is None else names(dispatcher)[arm]


def fast_seen(dispatcher: Dispatcher, mbps: float, now_s: float = 0.0) -> None:
    for step in range(30):
        dispatcher.uplink.sent(now_s - 3 + 0.1 * step, 1e4, 1e4 / (125e3 * mbps))


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


def frame_of(samples: int, **conditions: float) -> Dispatcher:
    """A frame of so many samples, number 1, was computed to be sent as JPEG, and is not yet."""
    some = dispatcher_of(8, 50.0)
    fast_seen(some, 50.0)
    for name, factor in conditions.items():
        setattr(some.conditions, name, factor)
    some.usable = some.arms.nbytes == some.arms.nbytes.max()
    some.choose_waiting(0.0, 1, samples=samples)
    some.in_hand.computed(0.0, 1)
    return some


def test_a_batch_takes_longer_at_the_worker() -> None:
    """Seven segments of 1 ms: 56 ms for a sample of a worker that is eight times slower."""
    assert frame_of(1, server_factor=8.0).worth_sending(0.0, 1)
    assert frame_of(4, server_factor=8.0).worth_sending(0.0, 1)
    assert not frame_of(6, server_factor=8.0).worth_sending(0.0, 1)


def test_a_batch_takes_longer_to_encode() -> None:
    """3.3 ms a sample."""
    assert frame_of(16).worth_sending(0.0, 1)
    assert not frame_of(16, edge_factor=6.0).worth_sending(0.0, 1)
    assert frame_of(1, edge_factor=6.0).worth_sending(0.0, 1)


def test_a_batch_takes_longer_to_finish() -> None:
    for samples in (1, 3):
        some = frame_of(samples)
        some.finish_begins(0.0, 1)
        arm = int(some.arms.nbytes.argmax())
        took_s = some.in_hand.device_free_s(0.0)
        assert took_s == pytest.approx(samples * float(some.arms.rest_s[arm]))


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


def upload_is_dear(patience_s: float | None) -> Dispatcher:
    """All on the device sends nothing, and takes 80 ms; its JPEG is there sooner."""
    table = measured_table(8)
    arms = Arms.of(table, all_allowed(table), table.nbytes * table.sends)
    some = Dispatcher(arms, 0.3, Conditions(ROUND_TRIP_MS), 125e4, patience_s=patience_s)
    fast_seen(some, 10.0)
    return some


def test_who_can_wait_sends_nothing_for_a_queue_of_frames() -> None:
    """Twenty of them at once keep the device busy for 1.6 s."""
    soon, patient = upload_is_dear(None), upload_is_dear(10.0)
    ways = [way(patient, patient.choose_waiting(0.0, number)) for number in range(20)]
    assert set(ways) == {"7:none"}
    assert len({way(soon, soon.choose_waiting(0.0, number)) for number in range(20)}) > 1


def test_what_a_live_frame_costs_counts_for_more_than_how_soon_it_is_there() -> None:
    taken = set()
    patient = upload_is_dear(10.0)
    for number in range(50):
        now_s = 0.25 * number
        arm = patient.choose(now_s, number)
        taken.add(way(patient, arm))
        patient.in_hand.computed(now_s + 0.08, number)
        patient.in_hand.end(number)
    assert taken == {"7:none"}


def test_the_first_plan_lets_frames_take_their_time_unless_latency_is_an_aim() -> None:
    """A device that takes a third of a second, and six frames that are taken in at once."""
    table, link = measured_table(32), parse_link("50mbps,20ms")
    for aim, most in (("bytes", 0.0), ("latency", math.inf)):
        auto = AutoPlan(objective=Objective.parse(aim))
        plan = FirstPlan(link, table, cast(Any, None))
        some = plan.dispatcher(manifest_of(len(SEGMENTS_MS)), auto, 10_000.0)
        arms = [some.choose_waiting(0.0, number) for number in range(6)]
        assert some.arms.nbytes[arms].max() <= most
    assert some.arms.nbytes[arms].max() > 0


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
