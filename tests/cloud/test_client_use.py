"""Limits of one client over all of its streams; time is a number here."""

from __future__ import annotations

import grpc
import pytest
from splitpoint.cloud.access import AccessError
from splitpoint.cloud.client_use import (
    FAULTS_AT_ONCE,
    FAULTS_PER_S,
    ClientUse,
    ClientUses,
    Places,
    TokenBucket,
)
from splitpoint.cloud.refusals import Refusal, Refusals
from splitpoint.cloud.tokens import Client
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("per_s", "burst"), [(5.0, 5), (0.5, 1), (1.5, 1)])
def test_bucket(per_s: float, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_s, clock)
    for _ in range(3):
        assert [bucket.take() for _ in range(burst + 3)] == [True] * burst + [False] * 3
        clock.now_s += 1000.0  # a pause is not saved up beyond a second's worth
    while bucket.take():
        pass
    let = 0
    for _ in range(10_000):
        clock.now_s += 0.01
        let += bucket.take()
    assert let == pytest.approx(100 * per_s, abs=1)


def test_who_sends_wrong_frames_waits_for_as_long_as_they_were_too_many() -> None:
    clock = Clock()
    use = ClientUse(Client(name="x"), Refusals(), clock)
    for _ in range(FAULTS_AT_ONCE):
        use.fault()
    assert use.pause_s == pytest.approx(0.0)
    use.fault()
    assert use.pause_s == pytest.approx(1 / FAULTS_PER_S)
    answered, until_s = 0, clock.now_s + 10.0
    while clock.now_s < until_s:
        use.fault()
        answered += 1
        clock.now_s += use.pause_s
    assert answered == pytest.approx(10 * FAULTS_PER_S, rel=0.01)
    clock.now_s += 1.0
    assert use.pause_s == 0.0


def test_bucket_without_a_limit() -> None:
    bucket = TokenBucket(float("inf"), Clock())
    assert all(bucket.take() for _ in range(1000))


def test_limits_hold_over_streams_and_reconnects() -> None:
    refusals, clock = Refusals(), Clock()
    uses = ClientUses(refusals, clock)
    client = Client(name="a", max_requests_per_s=2, max_bytes_in_flight=100)
    uses.of(client).request()
    uses.of(client).request()  # of another stream
    with pytest.raises(FrameError, match="2 times a second") as caught:
        uses.of(client).request()
    assert caught.value.status == pb.OVERLOADED
    uses.of(client).hold(60)
    with pytest.raises(FrameError, match="it may have 100") as caught:
        uses.of(client).hold(41)
    assert caught.value.status == pb.OVERLOADED
    uses.of(client).hold(40)
    uses.of(client).release(100)
    assert uses.of(client).nbytes == 0
    uses.of(Client(name="b")).request()
    assert refusals.counts == {Refusal.RATE: 1, Refusal.BYTES: 1}


def test_places() -> None:
    places = Places(3, 2)
    a, b, few = Client(name="a"), Client(name="b"), Client(name="few", max_streams=1)
    with places.taken(a), places.taken(few):
        with pytest.raises(AccessError, match="few has 1 streams") as caught, places.taken(few):
            pass
        assert caught.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason is Refusal.CLIENT_STREAMS
        with places.taken(a):
            with (
                pytest.raises(AccessError, match="the worker has 3 streams") as caught,
                places.taken(b),
            ):
                pass
            assert caught.value.reason is Refusal.STREAMS
        with pytest.raises(RuntimeError), places.taken(b):
            raise RuntimeError
        assert len(places) == 2
    assert len(places) == 0
    assert not places._taken
