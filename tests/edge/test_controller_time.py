"""Frames in time, probes of the link, and the line that says why: on the same few candidates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from few_candidates import (
    INPUT,
    LOCAL,
    ROUND_TRIP_MS,
    SMALL,
    SPLIT,
    TABLE,
    answer,
    controller_of,
    decided,
    table_of,
)
from splitpoint.edge.dispatch.controller import (
    LEAST_PROBE_BYTES,
    MOST_PROBE_BYTES,
    PROBE_EVERY_S,
    PROBE_MS,
)

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
        outlook = controller.outlook(0.0, 100.0)
        assert bool(outlook.in_time[INPUT] == 1.0) is can_finish
        assert outlook.in_time[LOCAL] == 1.0


def test_an_answer_after_the_device_has_begun_to_finish_is_still_in_time() -> None:
    """200 ms for a finish leave the cloud 50 of 250; its answer after 115 counts all the same."""
    table = table_of(edge_ms=(40.0, 160.0))
    controller = controller_of(INPUT, 8.0, table, budget_ms=250.0)
    controller.finishes_in_ms = finish_ms = {0: 200.0, 1: 160.0, 2: 0.0}
    controller.interval_ms = 150.0
    assert controller.outlook(0.0, 8.0).in_time[INPUT] == 1.0
    late = controller_of(INPUT, 2.0, table, budget_ms=250.0)
    late.finishes_in_ms, late.interval_ms = finish_ms, 150.0
    assert late.outlook(0.0, 2.0).in_time[INPUT] == pytest.approx(150 / 200)
    # A device that finishes in 300 ms is no help within 250, however fast its other runtime is.
    late.finishes_in_ms = {0: 300.0, 1: 240.0, 2: 0.0}
    assert late.outlook(0.0, 2.0).in_time[INPUT] == 0.0


def test_a_live_source_needs_a_plan_that_keeps_up() -> None:
    """Sending takes 27 ms of the link, the device's first half 20 ms, and frames come in 22 ms."""
    table = table_of((20.0, 12.0), (1.0, 4.0))
    controller = controller_of(LOCAL, 6.0, table)
    before = controller.outlook(0.0, 6.0)
    assert before.in_time[LOCAL] == before.in_time[SPLIT] == 1.0
    controller.interval_ms = 22.0
    outlook = controller.outlook(0.0, 6.0)
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
