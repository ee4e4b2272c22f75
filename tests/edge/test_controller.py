"""What each thing that the agent sees makes of the plan: pure, on a table of few candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from few_candidates import (
    INPUT,
    LOCAL,
    RAW1,
    ROUND_TRIP_MS,
    SMALL,
    SPLIT,
    TABLE,
    answer,
    controller_of,
    decided,
    table_of,
)
from splitpoint.edge.dispatch.conditions import MOST_FACTOR, QUEUE_HALF_LIFE_S
from splitpoint.edge.dispatch.controller import (
    EQUAL,
    HOLD_S,
    IN_A_ROW,
    LEAST_GAIN_MS,
    Switch,
)
from splitpoint.partition.plan.costs import OWN_MS, CostTable
from splitpoint.partition.plan.objective import Constraints


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
