"""Frames of several samples: they take so many times as long of everything."""

from __future__ import annotations

import pytest
from dispatchers import dispatcher_of, fast_seen
from splitpoint.edge.dispatch.dispatcher import Dispatcher


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
