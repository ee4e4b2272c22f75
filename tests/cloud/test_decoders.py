"""The decoders beside each other's frames, with work that ends when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from splitpoint.cloud.access.caller import Caller
from splitpoint.cloud.access.tokens import Client
from splitpoint.cloud.frames.decoders import DecoderDied, Decoders, Decoding
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

VALUES = {"x": np.zeros(1)}


class Pool(ThreadPoolExecutor):
    """Fails to start work as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(1)
        self.failures = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **kwargs)


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
async def decoders(pool: Pool) -> AsyncIterator[Decoders]:
    made = Decoders(1, 1000, pool)
    yield made
    made.shutdown()


def caller(name: str, connection: str = "1", *, is_address: bool = False) -> Caller:
    return Caller(client=Client(name=name, is_address=is_address), connection=connection)


def decoding(
    who: Caller,
    decode: Callable[[], Any] = lambda: VALUES,
    *,
    nbytes: int = 1,
    in_vain: Callable[[], FrameError | None] = lambda: None,
) -> Decoding:
    return Decoding(caller=who, nbytes=nbytes, device_s=0.01, in_vain=in_vain, decode=decode)


class Gate:
    """Work that waits until it is let go on."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def __call__(self) -> Any:
        assert self._open.wait(60)
        return VALUES

    def open(self) -> None:
        self._open.set()


async def started(*tasks: asyncio.Task[Any]) -> None:
    """Each is in the queue."""
    for _ in tasks:
        await asyncio.sleep(0)


async def busy(decoders: Decoders, who: Caller, gate: Gate) -> list[asyncio.Task[Any]]:
    """The one thread works, and has the next frame at hand."""
    tasks = [asyncio.create_task(decoders.run(decoding(who, gate))) for _ in range(2)]
    await started(*tasks)
    return tasks


async def test_a_neighbour_of_many_frames_is_next(decoders: Decoders) -> None:
    gate, order = Gate(), []

    def note(name: str) -> Callable[[], Any]:
        return lambda: order.append(name) or VALUES

    tasks = await busy(decoders, caller("hog"), gate)
    tasks += [
        asyncio.create_task(decoders.run(decoding(caller("hog", str(number)), note("hog"))))
        for number in range(64)
    ]
    await started(*tasks)
    tasks.append(asyncio.create_task(decoders.run(decoding(caller("other"), note("other")))))
    await started(*tasks)
    gate.open()
    await asyncio.gather(*tasks)
    assert order.index("other") <= 1


async def test_what_became_useless_while_it_waited_is_not_decoded(decoders: Decoders) -> None:
    gate, useless = Gate(), []
    tasks = await busy(decoders, caller("a"), gate)

    def never() -> Any:
        raise AssertionError("decoded")

    late = FrameError(pb.EXPIRED, "late")
    waiting = asyncio.create_task(
        decoders.run(decoding(caller("a"), never, in_vain=lambda: late if useless else None))
    )
    gone = asyncio.create_task(decoders.run(decoding(caller("a"), never)))
    await started(waiting, gone)
    useless.append(True)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    gate.open()
    with pytest.raises(FrameError) as caught:
        await waiting
    assert caught.value is late
    await asyncio.gather(*tasks)
    assert await decoders.run(decoding(caller("a"))) is VALUES
    assert decoders.nbytes == 0
    assert not decoders.waiting


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("x"), ValueError),
        (MemoryError(), MemoryError),
        (FrameError(pb.UNDECODABLE, "x"), FrameError),
        (SystemExit(1), DecoderDied),
        (KeyboardInterrupt(), DecoderDied),
        (GeneratorExit(), DecoderDied),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_whatever_a_decoder_raises_is_its_own_frames(
    decoders: Decoders, raised: BaseException, seen: type[Exception]
) -> None:
    def broken() -> Any:
        raise raised

    tasks = [asyncio.create_task(decoders.run(decoding(caller("a"), broken))) for _ in range(5)]
    for task in tasks:
        with pytest.raises(seen):
            await task
    assert await decoders.run(decoding(caller("a"))) is VALUES
    assert decoders.nbytes == 0


async def test_a_pool_that_cannot_work_now_costs_the_frames_of_now(
    decoders: Decoders, pool: Pool
) -> None:
    pool.failures = 2
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await decoders.run(decoding(caller("a")))
    assert await decoders.run(decoding(caller("a"))) is VALUES


async def test_a_check_that_fails_costs_its_own_frame(decoders: Decoders) -> None:
    def broken() -> FrameError | None:
        raise IndexError

    with pytest.raises(IndexError):
        await decoders.run(decoding(caller("a"), in_vain=broken))
    assert await decoders.run(decoding(caller("a"))) is VALUES


async def test_bytes_are_shared_out(decoders: Decoders) -> None:
    """One alone gets two thirds of what may wait; a newcomer finds room."""
    gate = Gate()
    tasks = await busy(decoders, caller("hog"), gate)
    for number in range(13):
        who = caller("hog", str(number))
        decoders.check(who, 50)
        tasks.append(asyncio.create_task(decoders.run(decoding(who, nbytes=50))))
        await started(*tasks)
    with pytest.raises(FrameError) as caught:
        decoders.check(caller("hog", "another"), 50)
    assert caught.value.status == pb.OVERLOADED
    assert decoders.nbytes == 2 + 13 * 50
    decoders.check(caller("other"), 300)
    assert decoders.device_s(caller("hog")) == pytest.approx(0.01 * len(tasks))
    assert decoders.device_s(caller("other")) == 0
    gate.open()
    await asyncio.gather(*tasks)
    assert decoders.nbytes == 0
    assert decoders.device_s(caller("hog")) == 0


async def test_who_shares_an_address_shares_its_turns_but_not_its_part_of_a_device(
    decoders: Decoders,
) -> None:
    gate = Gate()
    tasks = await busy(decoders, caller("10.0.0.1", "peer-1", is_address=True), gate)
    assert decoders.device_s(caller("10.0.0.1", "peer-1", is_address=True)) > 0
    assert decoders.device_s(caller("10.0.0.1", "peer-2", is_address=True)) == 0
    gate.open()
    await asyncio.gather(*tasks)
