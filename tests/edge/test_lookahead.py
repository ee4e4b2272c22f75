"""What an arm is worth where the device has a queue, and the link's rate is uncertain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from splitpoint.edge.dispatch.continuation import Continuation, Prices
from splitpoint.edge.dispatch.lookahead import Lookahead
from splitpoint.edge.dispatch.uplink import Scenarios
from splitpoint.edge.dispatch.work import Work

NOW_S, INTERVAL_S, BUDGET_S = 100.0, 0.05, 1.0
HERE, SPLIT = 0, 6
# EfficientNet-Lite0 on a device eight times slower: all of it, pictures, and cuts ever later.
WORK = Work(
    edge_s=np.array([0.096, 0, 0, 0, 0.026, 0.039, 0.047, 0.071]),
    encode_s=np.array([0, 0, 0.005, 0.003, 0.034, 0.017, 0.012, 0.011]),
    nbytes=np.array([0.0, 150628, 17926, 13366, 14285, 7767, 2002, 1151]),
    after_s=np.array([0.057, 0.073, 0.074, 0.074, 0.076, 0.066, 0.067, 0.063]),
    extra=np.zeros(8),
    sends=np.array([False] + [True] * 7),
    spread=0.12,
)


def link_of(*mbps: float) -> Scenarios:
    """An idle link that may have any of these rates, and 0.26 Mbit/s on the mean."""
    rates = 125e3 * np.array(mbps)
    weight = np.full(len(rates), 1 / len(rates))
    return Scenarios(rates, np.full(len(rates), NOW_S), weight, 125e3 * 0.26)


def values(link: Scenarios, queue_s: float) -> np.ndarray:
    """Of each arm and, last, of letting the frame go, behind so much work of the device."""
    prices = Prices.of(WORK, INTERVAL_S, BUDGET_S, link)
    lookahead = Lookahead(WORK, NOW_S, BUDGET_S, link)
    ways = lookahead.ways(NOW_S + queue_s, [])
    return lookahead.value(ways, Continuation(WORK, INTERVAL_S, BUDGET_S, prices))


@pytest.mark.parametrize("queue_s", [0.0, 0.1, 0.2])
def test_waiting_for_the_device_is_no_backlog_of_the_link(queue_s: float) -> None:
    """A split takes half of the device's time: a queue of the device speaks for it, not against."""
    found = values(link_of(0.07, 0.2, 0.26, 0.3, 0.31, 0.6, 1.04), queue_s)
    assert found[SPLIT] > found[HERE] - 0.02
    assert found[SPLIT] > found[-1]


def test_a_link_that_varies_is_as_dear_as_its_mean() -> None:
    """Rates that are slow now and then do not make bytes dear for ever."""
    steady, varying = values(link_of(0.26), 0.1), values(link_of(0.1, 0.26, 0.42), 0.1)
    for found in (steady, varying):
        assert found[SPLIT] > found[HERE]
    assert varying[SPLIT] - varying[HERE] > steady[SPLIT] - steady[HERE] - 0.4


def test_only_what_is_sent_makes_the_link_wait() -> None:
    """Not the device's own way, nor a frame that is let go: else a full link would look free."""
    ways = Lookahead(WORK, NOW_S, BUDGET_S, link_of(0.2, 0.3)).ways(NOW_S + 0.5, [])
    waits_s = ways.waits_s(NOW_S + 0.15)
    assert (waits_s[:, [HERE, -1]] == 0).all()
    ready_s = NOW_S + 0.5 + WORK.edge_s[SPLIT] + WORK.encode_s[SPLIT]
    assert waits_s[:, SPLIT] == pytest.approx(ready_s - NOW_S - 0.15)


def one_way(edge_s: float, left_s: float, *others: tuple[float, float]) -> tuple[Work, Scenarios]:
    """Arms that send, each of so much time on the device and on the link."""
    edges, lefts = np.array([(edge_s, left_s), *others]).T
    nothing = np.zeros(len(edges))
    work = Work(edges, nothing, 1e5 * lefts, nothing, nothing, np.ones(len(edges), bool))
    return work, Scenarios(np.array([1e5]), np.array([NOW_S]), np.ones(1), 1e5)


def test_frames_to_come_that_wait_for_the_device_are_no_backlog_of_the_link() -> None:
    """A queue of 0.3 s of computing, and 1 ms of the link for each frame behind it."""
    work, link = one_way(0.05, 0.001)
    free, queue = np.array([NOW_S]), np.array([NOW_S + 0.3])
    found = []
    for price in (0.0, 5.0):  # of a second of the link
        prices = Prices(np.array([0]), link=price)
        continuation = Continuation(work, INTERVAL_S, BUDGET_S, prices)
        found.append(continuation.worth(NOW_S, NOW_S, queue, free, free[np.newaxis], link).item())
    assert found[0] - 0.05 < found[1] < found[0]


def test_an_arm_is_to_go_on_with_where_it_is_in_time_behind_another_of_its_size() -> None:
    """Of the second arm the link sends more, but a frame behind another takes 120 of 100 ms."""
    work, link = one_way(0.09, 0.001, (0.0, 0.06))
    assert Prices.of(work, INTERVAL_S, 0.1, link).away[0] == 0
    assert Prices.of(work, INTERVAL_S, 0.2, link).away[0] == 1


def test_an_idle_device_takes_a_frame_however_many_more_there_are() -> None:
    """Those to come are let go: that they would not all be in time is nothing against this one."""
    slower = replace(WORK, edge_s=4 * WORK.edge_s, encode_s=4 * WORK.encode_s)
    link = link_of(0.06, 0.25, 0.25, 0.26, 1.0)
    prices = Prices.of(slower, INTERVAL_S, BUDGET_S, link)
    lookahead = Lookahead(slower, NOW_S, BUDGET_S, link)
    found = lookahead.value(
        lookahead.ways(NOW_S, []), Continuation(slower, INTERVAL_S, BUDGET_S, prices)
    )
    assert found.argmax() < len(found) - 1
    assert found[SPLIT] > found[-1] + 0.2
