"""What an agent tells its dispatcher of frames that are lost, and of streams."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from measured_table import all_allowed, measured_table
from splitpoint.edge.dispatch import adapt
from splitpoint.edge.dispatch.adapt import Adapter
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.dispatch.conditions import QUEUE_HALF_LIFE_S, Conditions
from splitpoint.edge.dispatch.dispatcher import Dispatcher
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.edge_events import Returned
from splitpoint.proto.session.edge_session import EdgeSession
from splitpoint.proto.status import UnreachableError

WAIT_MS = 400.0
BUSY = pb.Load(queue_ms=WAIT_MS, wait_ms=[WAIT_MS] * 8, slowdown=1.0)


class Clock:
    """The time that the adapter sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(adapt, "time", SimpleNamespace(perf_counter=lambda: self.now_s))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def dispatcher() -> Dispatcher:
    table = measured_table(8)
    arms = Arms.of(table, all_allowed(table), np.zeros(len(table)))
    return Dispatcher(arms, 1.0, Conditions(20.0), 125e4)


@pytest.fixture
def adapter(dispatcher: Dispatcher) -> Adapter:
    workers: Any = None  # which these tests do not come to
    return Adapter(measured_table(8), dispatcher, workers, lambda line: None)


class Stream:
    """One that says nothing by itself."""

    def __init__(self) -> None:
        self.session = EdgeSession("a:1", pb.Welcome(credits=4), 0.0)


def new_stream() -> Any:
    return Stream()


def send(adapter: Adapter, dispatcher: Dispatcher, stream: Any, clock: Clock) -> None:
    """The frame 1 goes out as the stream's 7, and nobody waits for it any more."""
    dispatcher.usable = dispatcher.arms.nbytes > 0
    dispatcher.choose_waiting(clock.now_s, 1)
    adapter.device_done(1)
    adapter.frame_sent(1, 1000, stream, 7)
    adapter.frame_ended(1)
    assert not dispatcher.in_hand.link_is_idle


def test_a_credit_that_is_lost_makes_no_old_load_new(
    adapter: Adapter, dispatcher: Dispatcher, clock: Clock
) -> None:
    stream = new_stream()
    stream.session.load = BUSY
    adapter.load_told(BUSY)
    send(adapter, dispatcher, stream, clock)
    clock.now_s += QUEUE_HALF_LIFE_S
    adapter._returned(stream, Returned(7, 1000.0, told=False))
    waits = np.asarray(dispatcher.conditions.queue_ms(clock.now_s))
    assert waits[dispatcher.arms.nbytes > 0] == pytest.approx(WAIT_MS / 2)
    assert dispatcher.in_hand.link_is_idle
    assert dispatcher.uplink.seen_s < 0  # nor is anything known of the link


def test_a_load_that_comes_with_a_late_reply_is_new(
    adapter: Adapter, dispatcher: Dispatcher, clock: Clock
) -> None:
    stream = new_stream()
    stream.session.load = BUSY
    send(adapter, dispatcher, stream, clock)
    clock.now_s += 0.5
    adapter._returned(stream, Returned(7, 300.0))
    waits = np.asarray(dispatcher.conditions.queue_ms(clock.now_s))
    assert waits[dispatcher.arms.nbytes > 0] == pytest.approx(WAIT_MS)
    assert dispatcher.in_hand.link_is_idle
    assert dispatcher.uplink.seen_s == clock.now_s


def test_what_was_on_a_lost_stream_is_not_under_way_though_the_stream_is_gone(
    adapter: Adapter, dispatcher: Dispatcher, clock: Clock
) -> None:
    stream = new_stream()
    send(adapter, dispatcher, stream, clock)
    stream.session.lose(UnreachableError("the stream was closed"))
    del stream
    gc.collect()
    adapter.new_stream(new_stream())
    assert dispatcher.in_hand.link_is_idle


def test_what_is_on_a_stream_that_goes_on_beside_another_stays_under_way(
    adapter: Adapter, dispatcher: Dispatcher, clock: Clock
) -> None:
    send(adapter, dispatcher, new_stream(), clock)
    adapter.new_stream(new_stream())
    assert not dispatcher.in_hand.link_is_idle
