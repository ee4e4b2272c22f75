"""Limits of clients over several ingest processes, and what one that has ended gives back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from splitpoint.cloud.access.quotas import ClientUses, Places
from splitpoint.cloud.access.refusals import Refusal, Refusals
from splitpoint.cloud.access.tokens import Client
from splitpoint.cloud.between.clients import client_of, refusal_of, told_client
from splitpoint.cloud.between.messages import MessageError
from splitpoint.cloud.fronts.desk import Desk, PlacesOfOne
from splitpoint.proto.frames import FrameError

GATE = Client(name="gate", max_streams=2, max_requests_per_s=3, max_bytes_in_flight=100)


def new_desk(streams: int = 10) -> Desk:
    kinds = {"streams": Places(streams, 5), "downloads": Places(1, 1)}
    return Desk(ClientUses(Refusals(), lambda: 0.0), kinds)


def question(number: int, client: Client, what: str = "streams") -> dict[str, Any]:
    return {"number": number, "what": what, "client": told_client(client)}


def test_a_client_is_told_with_its_limits() -> None:
    assert client_of(told_client(GATE)) == GATE
    plain = Client(name="192.0.2.1", is_address=True)
    assert client_of(told_client(plain)) == plain
    assert client_of(told_client(plain)).max_bytes_in_flight == math.inf


def test_streams_are_counted_over_all_processes() -> None:
    desk = new_desk()
    one, other = PlacesOfOne(desk), PlacesOfOne(desk)
    assert one.take(question(1, GATE)) == {"number": 1, "refused": None}
    assert other.take(question(1, GATE))["refused"] is None
    refused = refusal_of(one.take(question(2, GATE))["refused"])
    assert refused.reason is Refusal.CLIENT_STREAMS
    assert "gate has 2 streams" in str(refused)
    other.leave({"number": 1})
    assert one.take(question(3, GATE))["refused"] is None
    one.leave({"number": 2})  # it was refused, and is no news


def test_all_of_a_process_is_free_when_it_has_ended() -> None:
    desk = new_desk(streams=2)
    one, other = PlacesOfOne(desk), PlacesOfOne(desk)
    for number in (1, 2):
        assert one.take(question(number, GATE))["refused"] is None
    assert one.take(question(9, GATE, "downloads"))["refused"] is None
    anybody = Client(name="192.0.2.1", is_address=True)
    full = refusal_of(other.take(question(1, anybody))["refused"])
    assert full.reason is Refusal.STREAMS
    one.leave_all()
    assert other.take(question(2, anybody))["refused"] is None
    assert other.take(question(3, GATE, "downloads"))["refused"] is None
    assert len(desk.kinds["streams"]) == 1


def test_bytes_and_frames_are_counted_over_all_processes() -> None:
    desk = new_desk()
    one, other = PlacesOfOne(desk), PlacesOfOne(desk)
    one.take(question(1, GATE))
    use = desk.named["gate"]
    other.take(question(1, GATE))
    assert desk.named["gate"] is use
    use.hold(60)
    with pytest.raises(FrameError, match="it may have 100"):
        use.hold(41)
    for _ in range(3):
        use.request()
    with pytest.raises(FrameError, match="3 times a second"):
        use.request()
    one.leave_all()
    assert desk.named["gate"] is use
    other.leave_all()
    assert not desk.named
    assert not len(desk.kinds["streams"])


@pytest.mark.parametrize(
    "change",
    [
        {"number": "one"},
        {"what": "sofas"},
        {"client": None},
        {"client": {"name": "gate"}},
        {"client": told_client(GATE) | {"max_streams": "many"}},
    ],
)
def test_damaged_questions(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        PlacesOfOne(new_desk()).take(question(1, GATE) | change)


def test_a_place_is_not_asked_for_twice() -> None:
    places = PlacesOfOne(new_desk())
    places.take(question(1, GATE))
    with pytest.raises(MessageError):
        places.take(question(1, GATE))
