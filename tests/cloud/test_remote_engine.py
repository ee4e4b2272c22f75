"""Both ends of a frame's way between processes, in one: what is refused, and what is believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from served import served
from splitpoint.cloud.access.quotas import ClientUses, Places
from splitpoint.cloud.access.refusals import Refusals
from splitpoint.cloud.access.tokens import Client
from splitpoint.cloud.between.clients import told_client
from splitpoint.cloud.between.layout import LayoutError, Layouts, TensorForm
from splitpoint.cloud.between.messages import (
    NUMBER,
    Kind,
    MessageError,
    Settled,
    Submitted,
    pack_loads,
)
from splitpoint.cloud.between.shared_memory import SharedMemory
from splitpoint.cloud.between.slab import PIECE
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.engine.request import NotTaken, Request
from splitpoint.cloud.figures import Figures
from splitpoint.cloud.fronts.desk import Desk, PlacesOfOne
from splitpoint.cloud.fronts.requests import OfferedModel, Requests
from splitpoint.cloud.ingest.remote_engine import RemoteEngine
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.unexpected import Stage
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

NUMBER_OF_MODEL = 5


class Wire:
    """A pipe that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Kind, bytes]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def send(self, kind: Kind, data: bytes = b"") -> None:
        self.sent.append((kind, data))

    def last(self, kind: Kind) -> bytes:
        return next(data for found, data in reversed(self.sent) if found is kind)


class Device:
    """Engines that compute when they are asked to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.refuses: Exception | None = None
        self.asked = 0

    def submit(self, request: Request) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.taken.append(request)

    def cancel(self, request: Request) -> None:
        request.cancelled = True

    def load(self, model: ServedModel | None = None, client: str | None = None) -> pb.Load:
        self.asked += 1
        return pb.Load(queued=len(self.taken), slowdown=1.0)


@pytest.fixture
def model(small_bundle: Bundle) -> ServedModel:
    return served(small_bundle, unpacks=False)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    found = SharedMemory.create(2 * PIECE)
    yield found
    found.close()


class Ends:
    """An ingest process's end, `here`, and the engine's."""

    def __init__(self, model: ServedModel, memory: SharedMemory) -> None:
        self.model, self.device, self.figures = model, Device(), Figures()
        self.up, self.down = Wire(), Wire()
        self.here = RemoteEngine(self.up, memory, self.figures.unexpected)  # type: ignore[arg-type]
        self.here.know(NUMBER_OF_MODEL, model)
        self.desk = Desk(
            ClientUses(Refusals()), {"streams": Places(9, 9), "downloads": Places(9, 9)}
        )
        offers = {NUMBER_OF_MODEL: OfferedModel(model, Layouts(model))}
        self.there = Requests(self.device, offers, self.desk, self.figures, memory)  # type: ignore[arg-type]
        self.there.pipe = self.down  # type: ignore[assignment]
        self.answers: list[Any] = []

    def request(self, value: int = 1, **over: Any) -> Request:
        (spec,) = self.model.boundaries[0]
        fields: dict[str, Any] = {
            "model": self.model, "boundary": 0, "samples": 1, "deadline_s": float("inf"),
            "client": "gate", "values": {spec.name: np.full(spec.shape, value, np.uint8)},
            "answer": lambda request, result: self.answers.append(result), "broke": lambda: None,
        }  # fmt: skip
        return Request(**(fields | over))

    def submit(self, request: Request) -> None:
        """It is taken here, and handed over."""
        self.here.submit(request)
        self.there.submit(self.up.last(Kind.SUBMIT))

    def compute(self) -> None:
        """The device answers what it has, and that comes back."""
        (spec,) = self.model.form.specs
        taken, self.device.taken = self.device.taken, []
        for request in taken:
            (values,) = request.values.values()
            result = np.full(spec.shape, float(values.flat[0]), np.float32)
            request.answer(request, {spec.name: result})
        self.deliver()

    def deliver(self) -> None:
        sent, self.down.sent = self.down.sent, []
        for kind, data in sent:
            (self.here.take_answer if kind is Kind.ANSWER else self.here.take_broke)(data)


@pytest.fixture
def ends(model: ServedModel, memory: SharedMemory) -> Ends:
    return Ends(model, memory)


def test_a_frame_there_and_back(ends: Ends) -> None:
    request = ends.request(7)
    ends.submit(request)
    (there,) = ends.device.taken
    assert (there.model, there.client, there.nbytes) == (ends.model, "gate", 24 * 24 * 3)
    there.queued_s, there.started_s, there.finished_s, there.batch_computed = 1.0, 2.0, 3.0, 4
    ends.compute()
    (result,) = ends.answers
    assert (next(iter(result.values())) == 7).all()
    assert (request.queued_s, request.started_s, request.finished_s) == (1.0, 2.0, 3.0)
    assert request.batch_computed == 4
    assert ends.here.load(ends.model, "gate").queued == 0


def test_memory_that_is_full_refuses_until_an_answer_was_read(ends: Ends) -> None:
    ends.submit(ends.request(1))
    ends.submit(ends.request(2))
    with pytest.raises(FrameError, match="MB of frames wait already") as caught:
        ends.here.submit(ends.request(3))
    assert caught.value.status == pb.OVERLOADED
    ends.compute()
    for value in (3, 4):
        ends.submit(ends.request(value))
    ends.compute()
    assert [next(iter(a.values())).flat[0] for a in ends.answers] == [1, 2, 3, 4]


def test_what_the_engine_refuses_was_not_taken(ends: Ends) -> None:
    ends.device.refuses = FrameError(pb.OVERLOADED, "it would be late")
    ends.submit(ends.request())
    ends.deliver()
    (result,) = ends.answers
    assert isinstance(result, NotTaken)
    assert (result.status, str(result)) == (pb.OVERLOADED, "it would be late")
    ends.device.refuses = ZeroDivisionError()
    ends.submit(ends.request())
    ends.deliver()
    assert ends.answers[1].status == pb.INTERNAL
    assert ends.figures.unexpected.counts[Stage.RECEIVE] == 1
    ends.device.refuses = None
    ends.submit(ends.request(9))  # both gave back what they held
    ends.submit(ends.request(9))
    ends.compute()
    assert len(ends.answers) == 4


def test_errors_and_outputs_that_do_not_fit(ends: Ends) -> None:
    ends.submit(ends.request())
    ends.submit(ends.request())
    first, second = ends.device.taken
    first.answer(first, FrameError(pb.EXPIRED, "é" * 3000))
    (spec,) = ends.model.form.specs
    second.answer(second, {spec.name: np.zeros(3, np.float32)})
    ends.deliver()
    expired, misfit = ends.answers
    assert expired.status == pb.EXPIRED
    assert not isinstance(expired, NotTaken)
    assert set(str(expired)) <= {"é", "\N{REPLACEMENT CHARACTER}"}
    assert (misfit.status, "do not fit the bundle" in str(misfit)) == (pb.INTERNAL, True)
    for number, outputs in enumerate(({}, {spec.name: [0.0]}), 1):
        ends.submit(ends.request())
        (there,) = ends.device.taken[-1:]
        there.answer(there, outputs)
        ends.deliver()
        assert ends.answers[-1].status == pb.INTERNAL
        assert ends.figures.unexpected.counts[Stage.ANSWER] == number


def test_an_answer_that_nobody_can_take_costs_the_others_nothing(ends: Ends) -> None:
    def fails(request: Request, result: object) -> None:
        raise ZeroDivisionError

    ends.submit(ends.request(1, answer=fails))
    ends.submit(ends.request(2))
    ends.compute()
    assert len(ends.answers) == 1
    assert ends.figures.unexpected.counts[Stage.ANSWER] == 1


def test_cancelled_here_is_cancelled_there(ends: Ends) -> None:
    request = ends.request()
    ends.submit(request)
    ends.here.cancel(request)
    ends.there.cancel(ends.up.last(Kind.CANCEL))
    assert ends.device.taken[0].cancelled
    ends.there.cancel(NUMBER.pack(999))  # it was answered meanwhile
    ends.compute()
    ends.here.cancel(request)
    assert len([kind for kind, _ in ends.up.sent if kind is Kind.CANCEL]) == 1


async def test_who_broke_a_batch_is_told_before_the_answer_or_after(ends: Ends) -> None:
    broke: list[int] = []
    ends.submit(ends.request(broke=lambda: broke.append(1)))
    (there,) = ends.device.taken
    there.broke()
    await asyncio.sleep(0)
    there.answer(there, FrameError(pb.INTERNAL, "computing failed"))
    ends.deliver()
    assert broke == [1]
    there.broke()  # a thread that was left behind says so once more
    await asyncio.sleep(0)
    ends.deliver()
    assert broke == [1]


def test_a_process_that_ends_leaves_nothing(ends: Ends) -> None:
    places = PlacesOfOne(ends.desk)
    gate = Client(name="gate", max_bytes_in_flight=2000)
    places.take({"number": 1, "what": "streams", "client": told_client(gate)})
    use = ends.desk.named["gate"]
    ends.submit(ends.request())
    ends.here.submit(ends.request())
    ends.there.submit(ends.up.last(Kind.SUBMIT))  # 3456 bytes would be too many
    assert use.nbytes == 24 * 24 * 3
    assert Settled.read(ends.down.last(Kind.ANSWER)).status == pb.OVERLOADED
    ends.down.sent.clear()
    ends.there.end()
    places.leave_all()
    (there,) = ends.device.taken
    assert there.cancelled
    there.answer(there, FrameError(pb.CANCELLED, "nobody waits"))
    assert use.nbytes == 0
    assert not ends.down.sent


def described(**over: Any) -> Submitted:
    fields: dict[str, Any] = {
        "number": 1, "model": NUMBER_OF_MODEL, "boundary": 0, "samples": 1,
        "deadline_s": 1e9, "offset": 0, "room": PIECE, "share": "gate",
        "forms": (TensorForm(),),
    }  # fmt: skip
    return Submitted(**(fields | over))


@pytest.mark.parametrize(
    "over",
    [
        {"boundary": 77},
        {"samples": 0},
        {"samples": 5000},
        {"room": 64},  # not enough for the frame and its answer
        {"offset": 2 * PIECE},
        {"offset": PIECE + 64},
        {"offset": 3},
        {"offset": 1 << 63},
        {"room": 1 << 63},
        {"forms": ()},
        {"forms": (TensorForm(1),)},
        {"deadline_s": float("nan")},
    ],
)
def test_damaged_descriptions_are_believed_in_nothing(ends: Ends, over: dict[str, Any]) -> None:
    with pytest.raises((MessageError, LayoutError)):
        ends.there.submit(described(**over).packed())
    assert not ends.device.taken


def test_a_number_is_used_once(ends: Ends) -> None:
    ends.there.submit(described().packed())
    with pytest.raises(MessageError, match="there already"):
        ends.there.submit(described().packed())


def test_a_model_that_was_withdrawn_meanwhile(ends: Ends) -> None:
    ends.there.submit(described(model=6).packed())
    assert Settled.read(ends.down.last(Kind.ANSWER)).status == pb.STOPPING
    ends.here.forget(NUMBER_OF_MODEL)
    with pytest.raises(FrameError, match="not served any more"):
        ends.here.submit(ends.request())


def told(ends: Ends, **load: Any) -> None:
    ends.here.take_loads(pack_loads({NUMBER_OF_MODEL: pb.Load(**load).SerializeToString()}))


def job_of(model: ServedModel, budget_s: float) -> Job:
    return Job(
        model=model, boundary=1, samples=1, deadline_s=time.perf_counter() + budget_s, client="gate"
    )


def test_what_would_be_late_is_refused_before_it_is_decoded(ends: Ends) -> None:
    ends.here.check(ends.model, job_of(ends.model, 0.0))  # nothing is known yet
    told(ends, wait_ms=[900.0] * 4, slowdown=2.0)
    # Three segments of 2 ms, twice as slow as that, behind 0.9 s of others' frames.
    assert ends.here.alone_s(ends.model, 1, 1) == pytest.approx(0.012)
    ends.here.check(ends.model, job_of(ends.model, 5.0))
    with pytest.raises(FrameError, match="it would wait 900 ms"):
        ends.here.check(ends.model, job_of(ends.model, 0.5))
    told(ends, slowdown=1.0)
    with pytest.raises(FrameError, match="nothing can be computed"):
        ends.here.check(ends.model, job_of(ends.model, 5.0))


def test_what_was_told_long_ago_refuses_nobody(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpoint.cloud.ingest.remote_engine.SURE_S", -1.0)
    told(ends, wait_ms=[900.0] * 4)
    ends.here.check(ends.model, job_of(ends.model, 0.5))


def test_a_client_is_told_its_own_load_and_others_that_of_all(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ends.here.load(ends.model, "gate") == pb.Load()
    told(ends, queued=3)
    ends.submit(ends.request())
    ends.compute()  # it is told with the answer: nothing was queued
    assert ends.here.load(ends.model, "gate").queued == 0
    assert ends.here.load(ends.model, "other").queued == 3
    asked = ends.device.asked
    ends.submit(ends.request())
    ends.compute()
    assert ends.device.asked == asked  # it was told a moment ago
    assert ends.here.load(ends.model, "gate").queued == 0
    monkeypatch.setattr("splitpoint.cloud.ingest.remote_engine.OWN_S", 0.0)
    told(ends, queued=4)  # which is newer
    assert ends.here.load(ends.model, "gate").queued == 4


def test_another_model_is_not_known(ends: Ends) -> None:
    other = replace(ends.model)
    assert ends.here.load(other, "gate") == pb.Load()
    with pytest.raises(FrameError):
        ends.here.submit(ends.request(model=other))
