"""What each thing that the agent sees makes of the plan: pure, on a table of few candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.conditions import MOST_FACTOR, QUEUE_HALF_LIFE_S
from splitpoint.edge.dispatch.controller import (
    EQUAL,
    HOLD_S,
    IN_A_ROW,
    LEAST_GAIN_MS,
    LEAST_PROBE_BYTES,
    MOST_PROBE_BYTES,
    PROBE_EVERY_S,
    PROBE_MS,
    Controller,
    Switch,
)
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import OWN_MS, CostTable, cost_table
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online import OnlinePlanner
from splitpoint.partition.profile.cloud_times import CloudTimes

RAW0, RAW1 = 100_000.0, 20_000.0  # bytes of the input, and of boundary 1
ROUND_TRIP_MS = 10.0


def table_of(
    edge_ms: Sequence[float] = (20.0, 80.0), cloud_ms: Sequence[float] = (1.0, 4.0)
) -> CostTable:
    """All on the device takes 100 ms; the input or boundary 1 may be sent, raw or as q8."""
    codecs = [codec_time(0, "raw", RAW0), codec_time(1, "raw", RAW1), codec_time(1, "q8", RAW1 / 4)]
    return cost_table(
        manifest_of(2),
        [profile_of(edge_ms, codecs)],
        CloudTimes(segment_ms=tuple(cloud_ms)),
        radio=RADIOS["wifi"],
    )


TABLE = table_of()
LOCAL, INPUT, SPLIT, SMALL = range(4)


def controller_of(
    start: int,
    mbps: float | None,
    table: CostTable = TABLE,
    *,
    budget_ms: float = 10_000.0,
    constraints: Constraints | None = None,
) -> Controller:
    planner = OnlinePlanner(
        table, manifest_of(2), Objective({"latency": 1.0}), constraints or Constraints()
    )
    controller = Controller(
        table, planner, start=start, budget_ms=budget_ms, round_trip_ms=ROUND_TRIP_MS
    )
    if mbps is not None:
        controller.knows(0.0, [mbps] * 4)
    return controller


def decided(controller: Controller, now_s: float = 0.0, frames: int = IN_A_ROW) -> Switch | None:
    """What comes of so many frames that show nothing new."""
    for _ in range(frames):
        switch = controller.decide(now_s)
        if switch is not None:
            return switch
    return None


def answer(controller: Controller, now_s: float, mbps: float, **changed: float) -> None:
    """A frame of the present plan over a link of `mbps`, all else as its profile says."""
    index = controller.current
    nbytes = float(TABLE.nbytes[index])
    seen = {"queue_ms": 0.0, "server_ms": float(TABLE.server_ms[index])} | changed
    controller.answered(now_s, index, nbytes=nbytes, left_ms=nbytes * 8e-3 / mbps, **seen)


def test_the_table_is_what_these_tests_take_it_for() -> None:
    assert list(TABLE.boundary) == [2, 0, 1, 1]
    assert TABLE.codec == ("none", "raw", "raw", "q8")
    assert list(TABLE.edge_ms) == [100.0, 0.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("mbps", "best"), [(1000.0, INPUT), (30.0, SPLIT), (10.0, SMALL), (0.3, LOCAL)]
)
def test_the_link_decides(mbps: float, best: int) -> None:
    table = replace(TABLE, loss=np.array([0, 0, 0, 0.02]), encode_ms=np.array([0, 0, 0, 6.0]))
    for start in range(4):
        controller = controller_of(start, mbps, table)
        switch = decided(controller)
        assert controller.current == best
        assert switch == (
            None if start == best else Switch(before=start, after=best, why=switch.why)  # type: ignore[union-attr]
        )


def test_nothing_is_decided_before_the_link_was_seen() -> None:
    controller = controller_of(LOCAL, None)
    assert decided(controller, frames=10) is None
    assert controller.probe_bytes(0.0) is not None


def test_it_takes_several_frames_in_a_row() -> None:
    controller = controller_of(LOCAL, 100.0)
    assert decided(controller, frames=IN_A_ROW - 1) is None
    assert controller.decide(0.0) is not None

    wavering = controller_of(LOCAL, 100.0)
    for _ in range(5):
        assert decided(wavering, frames=IN_A_ROW - 1) is None
        wavering.load(0.0, [1000.0] * 99, 1.0)  # a busy worker: staying is right
        assert wavering.decide(0.0) is None
        wavering.load(0.0, [0.0] * 99, 1.0)


def test_it_holds_a_plan_for_a_while() -> None:
    controller = controller_of(LOCAL, 100.0)
    assert decided(controller, 0.0) is not None
    controller.load(0.0, [1000.0] * 99, 1.0)
    assert decided(controller, 0.9 * HOLD_S, frames=20) is None
    assert controller.current != LOCAL
    assert controller.decide(HOLD_S) is not None
    assert controller.current == LOCAL


def two_ways(gain_ms: float, ms: float = 10.0) -> CostTable:
    """All on the device in `ms`, or the input sent in `gain_ms` less over an endless link."""
    away_ms = ms - gain_ms - ROUND_TRIP_MS - OWN_MS
    table = table_of((ms / 2, ms / 2), (0.0, 0.0))
    return replace(table, server_ms=np.array([0, away_ms, 1e4, 1e4]), nbytes=np.full(4, 1e-6))


@pytest.mark.parametrize(
    ("gain_ms", "ms", "moves"),
    [
        (0.9 * LEAST_GAIN_MS, 14.0, False),  # more than the margin, and yet nothing
        (1.1 * LEAST_GAIN_MS, 14.0, True),
        (2.0, 100.0, False),  # some milliseconds, and yet within the margin
        (4.0, 100.0, True),
    ],
)
def test_a_plan_is_left_for_a_clear_gain_alone(gain_ms: float, ms: float, moves: bool) -> None:
    controller = controller_of(LOCAL, 100.0, two_ways(gain_ms, ms))
    assert (decided(controller, frames=20) is not None) is moves


@pytest.mark.parametrize(("worse", "chosen"), [(0.5 * EQUAL, SPLIT), (2 * EQUAL, SMALL)])
def test_of_equals_the_one_that_loses_least(worse: float, chosen: int) -> None:
    server_ms = np.array([0.0, 1e4, 40.0 * (1 + worse), 40.0])
    table = replace(
        TABLE,
        edge_ms=np.array([200.0, 0, 0, 0]),
        server_ms=server_ms + np.array([0, 0, (ROUND_TRIP_MS + OWN_MS) * worse, 0]),
        nbytes=np.full(4, 1e-6),
        loss=np.array([0, 0, 0.001, 0.02]),
    )
    controller = controller_of(LOCAL, 100.0, table)
    assert decided(controller) is not None
    assert controller.current == chosen


def test_what_is_barred_is_never_chosen() -> None:
    barred = Constraints(must_not_upload_input=True)
    controller = controller_of(LOCAL, 1000.0, constraints=barred)
    assert decided(controller) is not None
    assert TABLE.boundary[controller.current] == 1  # without the bar it is the input
    assert decided(controller, 1.0, frames=20) is None


def test_where_nothing_keeps_the_deadline_the_quickest_runs() -> None:
    controller = controller_of(LOCAL, 1000.0, constraints=Constraints(deadline_ms=1.0))
    assert decided(controller) is not None
    assert controller.current == INPUT


# Events. --------------------------------------------------------------------------------------


def test_a_slow_link_shows_in_answers() -> None:
    controller = controller_of(SPLIT, 30.0)
    for number in range(10):
        answer(controller, 0.1 * number, 1.0)
        controller.decide(0.1 * number)
    assert controller.current in (LOCAL, SMALL)
    assert controller.uplink.mbps(1.0, 50) == pytest.approx(1.0)


def test_answers_that_overtook_each_other_show_no_rate() -> None:
    controller = controller_of(SPLIT, 30.0)
    for _ in range(5):
        controller.answered(0.0, SPLIT, nbytes=1e6, left_ms=-3.0, queue_ms=0.0, server_ms=4.0)
    assert controller.uplink.mbps(0.0, 100) == pytest.approx(30.0)


def test_a_busy_worker_sends_frames_home_until_its_queue_is_forgotten() -> None:
    controller = controller_of(INPUT, 1000.0)
    for number in range(20):
        answer(controller, 0.1 * number, 1000.0, queue_ms=500.0)
        controller.decide(0.1 * number)
    assert controller.current == LOCAL
    assert controller.conditions.queue_ms(1.9) == pytest.approx(500.0, rel=0.02)
    later = 1.9 + 4 * QUEUE_HALF_LIFE_S
    assert controller.conditions.queue_ms(later) == pytest.approx(500.0 / 16, rel=0.02)


def test_a_slow_device_sends_more_and_a_slow_worker_less() -> None:
    device = controller_of(LOCAL, 0.6)
    assert decided(device) is None
    for _ in range(40):
        device.computed(LOCAL, 400.0)
    assert device.conditions.edge_factor == pytest.approx(4.0, rel=0.05)
    assert decided(device) is not None
    assert device.current == SMALL

    worker = controller_of(INPUT, 1000.0)
    for number in range(60):
        answer(worker, 0.1 * number, 1000.0, server_ms=500.0)
    assert worker.conditions.server_factor == pytest.approx(MOST_FACTOR, rel=0.05)
    assert decided(worker, 6.0) is not None
    assert worker.current == LOCAL


def test_what_the_worker_says_of_itself_counts_at_once() -> None:
    controller = controller_of(INPUT, 1000.0)
    controller.load(0.0, [300.0] * 99, 1.0)
    assert controller.conditions.queue_ms(0.0) == pytest.approx([0.0, 300.0, 300.0, 300.0])
    controller.load(0.0, [0.0] * 99, 1e9)
    assert controller.conditions.server_factor == MOST_FACTOR


def test_a_shorter_wait_further_on_moves_the_cut_there() -> None:
    """Frames at boundary 1 are taken in on the way; those at the input wait for all of it."""
    controller = controller_of(INPUT, 100.0)
    assert decided(controller) is None
    controller.load(0.0, [300.0, 5.0, 0.0], 1.0)
    switch = decided(controller)
    assert switch is not None
    assert switch.after in (SPLIT, SMALL)
    assert "the worker's queue 300 ms" in switch.why


def test_frames_without_an_answer_drive_the_plan_from_the_link() -> None:
    controller = controller_of(SPLIT, 30.0)
    for number in range(6):
        controller.late(0.2 * number, RAW1, 2000.0)
        controller.decide(0.2 * number)
    assert controller.current in (LOCAL, SMALL)


def test_a_frame_that_could_not_have_been_answered_yet_says_nothing_of_the_link() -> None:
    controller = controller_of(SPLIT, 30.0)
    controller.load(0.0, [80.0] * 99, 5.0)  # 80 ms of queue, 5 x 4 ms of computing, 10 ms of delay
    for _ in range(5):
        controller.late(0.0, RAW1, 109.0)
    assert controller.uplink.mbps(0.0, 0) == pytest.approx(30.0)
    controller.late(0.0, RAW1, 310.0)  # 20 kB in no more than 200 ms
    assert controller.uplink.mbps(0.0, 0) == pytest.approx(0.8)


def test_an_empty_echo_is_the_round_trip_and_a_long_one_the_rate() -> None:
    controller = controller_of(SPLIT, 30.0)
    controller.echoed(0.0, 0, 4.0)
    assert controller.conditions.round_trip_ms == 4.0  # shorter is believed
    controller.echoed(0.0, 0, 44.0)
    assert controller.conditions.round_trip_ms == pytest.approx(14.0)  # longer bit by bit
    controller.echoed(0.0, 4096, 14.0 + 4096 * 8e-3 / 2.0)
    assert controller.uplink.mbps(0.0, 50) == pytest.approx(2.0)


# Frames in time. --------------------------------------------------------------------------------


def test_a_plan_whose_frames_come_too_late_is_left_whatever_its_mean() -> None:
    controller = controller_of(SPLIT, None, budget_ms=110.0)
    controller.knows(0.0, [100.0] * 8 + [1.5] * 2)  # a fifth of the time 107 ms for the upload
    switch = decided(controller)
    assert switch is not None
    assert controller.current == SMALL
    assert "more frames in time" in switch.why


def test_a_device_that_can_finish_may_go_on_asking() -> None:
    """The same link, with a budget that holds the device's whole work."""
    rates = [100.0] * 8 + [1.5] * 2
    controllers = [controller_of(INPUT, None, budget_ms=105.0) for _ in range(2)]
    for controller, can_finish in zip(controllers, (False, True), strict=True):
        controller.knows(0.0, rates)
        controller.finishes_in_ms = {0: 100.0, 1: 80.0, 2: 0.0} if can_finish else None
        outlook = controller._outlook(0.0, 100.0)
        assert bool(outlook.in_time[INPUT] == 1.0) is can_finish
        assert outlook.in_time[LOCAL] == 1.0


def test_an_answer_after_the_device_has_begun_to_finish_is_still_in_time() -> None:
    """200 ms for a finish leave the cloud 50 of 250; its answer after 115 counts all the same."""
    table = table_of(edge_ms=(40.0, 160.0))
    controller = controller_of(INPUT, 8.0, table, budget_ms=250.0)
    controller.finishes_in_ms = finish_ms = {0: 200.0, 1: 160.0, 2: 0.0}
    controller.interval_ms = 150.0
    assert controller._outlook(0.0, 8.0).in_time[INPUT] == 1.0
    late = controller_of(INPUT, 2.0, table, budget_ms=250.0)
    late.finishes_in_ms, late.interval_ms = finish_ms, 150.0
    assert late._outlook(0.0, 2.0).in_time[INPUT] == pytest.approx(150 / 200)
    # A device that finishes in 300 ms is no help within 250, however fast its other runtime is.
    late.finishes_in_ms = {0: 300.0, 1: 240.0, 2: 0.0}
    assert late._outlook(0.0, 2.0).in_time[INPUT] == 0.0


def test_a_live_source_needs_a_plan_that_keeps_up() -> None:
    """Sending takes 27 ms of the link, the device's first half 20 ms, and frames come in 22 ms."""
    table = table_of((20.0, 12.0), (1.0, 4.0))
    controller = controller_of(LOCAL, 6.0, table)
    before = controller._outlook(0.0, 6.0)
    assert before.in_time[LOCAL] == before.in_time[SPLIT] == 1.0
    controller.interval_ms = 22.0
    outlook = controller._outlook(0.0, 6.0)
    assert outlook.in_time[LOCAL] == pytest.approx(22 / 32)
    assert outlook.in_time[SMALL] == 1.0
    assert outlook.in_time[SPLIT] == pytest.approx(22 / (table.nbytes[SPLIT] * 8e-3 / 6.0))
    switch = decided(controller)
    assert switch is not None
    assert controller.current == SMALL
    assert "31 % more frames in time" in switch.why


# Probes. ------------------------------------------------------------------------------------------


def test_probes_are_due_where_a_better_link_would_change_the_plan() -> None:
    controller = controller_of(LOCAL, 0.5)
    assert decided(controller) is None
    nbytes = controller.probe_bytes(5.0)
    assert nbytes is not None
    assert controller.probe_bytes(5.0 + 0.9 * PROBE_EVERY_S) is None
    assert controller.probe_bytes(5.0 + PROBE_EVERY_S) is not None


def test_where_all_stays_on_the_device_whatever_the_link_none_is_due() -> None:
    quick = table_of((1.0, 2.0))  # a round trip alone takes 10
    controller = controller_of(LOCAL, 0.5, quick)
    assert all(controller.probe_bytes(float(second)) is None for second in range(100))
    best = controller_of(INPUT, 1000.0)
    assert all(best.probe_bytes(float(second)) is None for second in range(2, 100))


@pytest.mark.parametrize("mbps", [0.5, 1.0, 3.0, 6.0, 30.0])
def test_a_probe_takes_no_more_of_the_link_than_it_may(mbps: float) -> None:
    table = table_of((100.0, 100.0))
    controller = controller_of(SMALL, mbps, table)
    nbytes = controller.probe_bytes(5.0)
    assert nbytes is not None
    assert nbytes * 8e-3 / mbps <= PROBE_MS
    assert LEAST_PROBE_BYTES <= nbytes <= MOST_PROBE_BYTES


def test_frames_that_tell_as_much_spare_the_probe() -> None:
    controller = controller_of(SPLIT, 30.0)
    answer(controller, 5.0, 30.0)
    assert controller.probe_bytes(5.1) is None
    assert controller.probe_bytes(5.1 + PROBE_EVERY_S) is not None


def test_a_probe_that_is_too_short_to_tell_is_followed_by_longer_ones() -> None:
    controller = controller_of(LOCAL, 0.5)
    padding = controller.probe_bytes(5.0)
    sizes = []
    while padding is not None:
        sizes.append(padding)
        controller.echoed(5.0, padding, ROUND_TRIP_MS + padding * 8e-3 / 200.0)
        padding = controller.probe_bytes(5.0)
    assert sizes == [1250, 5000, MOST_PROBE_BYTES]
    rate = controller.uplink.mbps(5.0, 50)
    assert rate is not None
    assert rate > 100.0  # it could not tell more within a millisecond
    assert decided(controller, 5.0) is not None
    assert controller.current != LOCAL


def test_silence_costs_nothing_even_after_a_day() -> None:
    controller = controller_of(LOCAL, 0.5)
    controller.load(0.0, [100.0] * 99, 3.0)
    assert controller.decide(1e5) is None
    assert controller.probe_bytes(1e5) is not None
    assert controller.conditions.queue_ms(1e9) == pytest.approx(0.0)


# The line. ------------------------------------------------------------------------------------


def test_the_line_says_what_changed_and_what_it_brings() -> None:
    link = controller_of(LOCAL, 100.0)
    switch = decided(link)
    assert switch is not None
    assert switch.why.startswith("uplink 100 Mbit/s (p20): local -> ")
    assert switch.why.endswith("ms sooner")

    device = controller_of(LOCAL, 0.6)
    device.decide(0.0)
    for _ in range(20):
        device.computed(LOCAL, 400.0)
    switch = decided(device)
    assert switch is not None
    assert switch.why.startswith("the device takes 4x its profile: local -> boundary 1 as q8, ")

    queue = controller_of(INPUT, 1000.0)
    queue.decide(0.0)
    queue.load(0.0, [700.0] * 99, 1.0)
    switch = decided(queue)
    assert switch is not None
    assert switch.why.startswith("the worker's queue 700 ms: boundary 0 as raw -> local, ")


def test_a_queue_of_half_a_millisecond_is_not_named_for_a_link_that_fell() -> None:
    controller = controller_of(INPUT, 1000.0)
    controller.decide(0.0)
    for number in range(5):
        answer(controller, 0.01 * number, 20.0, queue_ms=0.5)
    switch = decided(controller, 1.0)
    assert switch is not None
    assert switch.why.startswith("uplink 20 Mbit/s")


def test_of_one_boundary_the_line_names_the_codecs_alone() -> None:
    table = replace(TABLE, encode_ms=np.array([0, 0, 0, 6.0]), server_ms=TABLE.server_ms + 1)
    controller = controller_of(SPLIT, 5.0, table)
    switch = decided(controller)
    assert switch is not None
    assert ": raw -> q8, " in switch.why


def test_rates_are_finite_whatever_happens() -> None:
    controller = controller_of(SPLIT, 30.0)
    for now_s in range(50):
        controller.late(float(now_s), 1.0, 1e9)
        controller.echoed(float(now_s), MOST_PROBE_BYTES, 0.0)
        answer(controller, float(now_s), 1e6)
        controller.decide(float(now_s))
        rate = controller.uplink.mbps(float(now_s), 20)
        assert rate is not None
        assert 0 < rate < math.inf
