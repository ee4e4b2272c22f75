"""Limits of one client over all of its streams; time is a number here."""

from __future__ import annotations

import grpc
import pytest
from splitpoint.cloud.access.access import AccessError
from splitpoint.cloud.access.quotas import (
    IN_VAIN_AT_ONCE,
    IN_VAIN_PER_S,
    IN_VAIN_STREAMS,
    MOST_PAUSE_S,
    ClientUse,
    ClientUses,
    Places,
    StreamUse,
)
from splitpoint.cloud.access.refusals import Refusal, Refusals
from splitpoint.cloud.access.token_bucket import TokenBucket
from splitpoint.cloud.access.tokens import Client
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


def streams_of(use: ClientUse, clock: Clock, count: int) -> list[StreamUse]:
    use.streams += count
    return [StreamUse(use, clock) for _ in range(count)]


@pytest.mark.parametrize("per_s", [float("inf"), 5.0])
def test_who_sends_in_vain_waits_for_as_long_as_it_was_too_much(per_s: float) -> None:
    """With a rate limit and without."""
    clock = Clock()
    use = ClientUse(Client(name="x", max_requests_per_s=per_s), Refusals(), clock)
    (stream,) = streams_of(use, clock, 1)
    for _ in range(IN_VAIN_AT_ONCE):
        stream.in_vain()
    assert stream.pause_s == pytest.approx(0.0)
    stream.in_vain()
    assert stream.pause_s == pytest.approx(1 / IN_VAIN_PER_S)
    taken, until_s = 0, clock.now_s + 10.0
    while clock.now_s < until_s:
        stream.in_vain()
        taken += 1
        clock.now_s += stream.pause_s
    assert taken == pytest.approx(10 * IN_VAIN_PER_S, rel=0.01)
    clock.now_s += 1.0
    assert stream.pause_s == 0.0


@pytest.mark.parametrize("streams", [1, 4, 10, 64])
def test_a_flood_over_many_streams_is_taken_no_faster_than_one_client_may(streams: int) -> None:
    """Each of the streams sends as fast as it is read from."""
    clock = Clock()
    flood = streams_of(ClientUse(Client(name="x"), Refusals(), clock), clock, streams)
    taken, until_s = 0, clock.now_s + 3.0
    while clock.now_s < until_s:
        for stream in flood:
            if stream.pause_s == 0.0:
                stream.in_vain()
                taken += 1
        clock.now_s += 1e-3
    most = min(streams, IN_VAIN_STREAMS)
    assert taken == pytest.approx(3 * most * IN_VAIN_PER_S + most * IN_VAIN_AT_ONCE, rel=0.02)


def test_who_has_good_frames_does_not_wait_for_who_floods_from_the_same_address() -> None:
    clock = Clock()
    *flood, good, refused = streams_of(ClientUse(Client(name="x"), Refusals(), clock), clock, 66)
    longest_s = 0.0
    for step in range(5000):
        for stream in flood:
            if stream.pause_s == 0.0:
                stream.in_vain()
        if step % 33 == 0:  # 30 a second
            refused.in_vain()
            longest_s = max(longest_s, refused.pause_s)
        assert good.pause_s == 0.0
        clock.now_s += 1e-3
    assert longest_s < 0.1  # its turn among the others


@pytest.mark.parametrize("streams", [1, 4])
def test_honest_clients_never_wait(streams: int) -> None:
    """Every frame of 30 a second is refused, its cancel comes too late, and links are measured."""
    clock = Clock()
    honest = streams_of(ClientUse(Client(name="x"), Refusals(), clock), clock, streams)
    for stream in honest:  # as at the start: three echoes, then the link's rate
        for _ in range(24):
            stream.probe()
            assert stream.pause_s == 0.0
    for step in range(30 * 60):
        clock.now_s += 1 / 30
        for stream in honest:
            stream.in_vain()
            stream.in_vain()
            if step % 15 == 0:
                stream.probe()
            assert stream.pause_s == 0.0


def test_probes_are_free_as_long_as_somebody_may_need_them() -> None:
    clock = Clock()
    (stream,) = streams_of(ClientUse(Client(name="x"), Refusals(), clock), clock, 1)
    taken, until_s = 0, clock.now_s + 10.0
    while clock.now_s < until_s:
        stream.probe()
        taken += 1
        clock.now_s += max(stream.pause_s, 1e-4)
    assert taken < 10 * 1.5 * IN_VAIN_PER_S


def test_whoever_connects_anew_owes_what_it_owed_and_nobody_is_remembered_for_long() -> None:
    clock = Clock()
    uses = ClientUses(Refusals(), clock)
    address = Client(name="10.0.0.1", is_address=True)
    taken, until_s, reconnects = 0, clock.now_s + 10.0, 0
    while clock.now_s < until_s:
        reconnects += 1
        with uses.of(address) as use:
            stream = StreamUse(use, clock)
            while stream.pause_s == 0.0 and clock.now_s < until_s:
                stream.in_vain()
                taken += 1
        clock.now_s += 0.002
    assert taken < reconnects + IN_VAIN_AT_ONCE + 10 * IN_VAIN_PER_S
    with uses.of(address) as use:  # and who shares its address does not wait for ever
        stream = StreamUse(use, clock)
        stream.in_vain()
        assert stream.pause_s <= MOST_PAUSE_S
    for number in range(1000):
        with uses.of(Client(name=f"10.1.{number}", is_address=True)) as use:
            StreamUse(use, clock).in_vain()
        clock.now_s += 0.1
    assert len(uses) < 20


def test_bucket_without_a_limit() -> None:
    bucket = TokenBucket(float("inf"), Clock())
    assert all(bucket.take() for _ in range(1000))


def test_limits_hold_over_streams_and_reconnects() -> None:
    refusals, clock = Refusals(), Clock()
    uses = ClientUses(refusals, clock)
    client = Client(name="a", max_requests_per_s=2, max_bytes_in_flight=100)
    with uses.of(client) as one, uses.of(client) as two:
        one.request()
        two.request()
    with uses.of(client) as later:
        with pytest.raises(FrameError, match="2 times a second") as caught:
            later.request()
        assert caught.value.status == pb.OVERLOADED
        later.hold(60)
        with pytest.raises(FrameError, match="it may have 100") as caught:
            later.hold(41)
        assert caught.value.status == pb.OVERLOADED
        later.hold(40)
        later.release(100)
        assert later.nbytes == 0
        with uses.of(Client(name="b")) as other:
            other.request()
    assert refusals.counts == {Refusal.RATE: 1, Refusal.BYTES: 1}


async def test_places() -> None:
    places = Places(3, 2)
    a, b, few = Client(name="a"), Client(name="b"), Client(name="few", max_streams=1)
    async with places.taken(a), places.taken(few):
        with pytest.raises(AccessError, match="few has 1 streams") as caught:
            async with places.taken(few):
                pass
        assert caught.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason is Refusal.CLIENT_STREAMS
        async with places.taken(a):
            with pytest.raises(AccessError, match="the worker has 3 streams") as caught:
                async with places.taken(b):
                    pass
            assert caught.value.reason is Refusal.STREAMS
        with pytest.raises(RuntimeError):
            async with places.taken(b):
                raise RuntimeError
        assert len(places) == 2
    assert len(places) == 0
    assert not len(places)
