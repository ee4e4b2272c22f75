"""The device's half of frames, in a thread for computing and one for encoding, or in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from splitpoint.partition.plan.plan import Plan
from splitpoint.proto.status import FrameExpiredError

from ..errors import AgentError
from .edge_half import EdgeHalf, EdgePart
from .frame import Frame
from .work_time import WorkTime

T = TypeVar("T")

MOST_REMEMBERED = 64  # plans, each with the batches that came


@dataclass(frozen=True, slots=True)
class _WorkTimes:
    computing: WorkTime = field(default_factory=WorkTime)
    encoding: WorkTime = field(default_factory=WorkTime)


@dataclass(frozen=True, slots=True)
class Threads:
    """One for computing, and one for encoding what the other has computed."""

    compute: Executor
    encode: Executor


class HalfInThreads:
    """Frames in their order. What is shorter than the way to a thread and back is done in place."""

    def __init__(self, half: EdgeHalf, threads: Threads) -> None:
        self._half, self._threads = half, threads
        # Frames of several plans and batches are under way at once, and what one takes says nothing
        # of another.
        self._times: dict[tuple[Plan, int], _WorkTimes] = {}

    async def compute(self, frame: Frame, *, encode: bool) -> EdgePart:
        """With `encode` it may be encoded by then, where that is not worth another thread."""
        times = self._times_of(frame)
        # What is sent as it came must not wait for frames that the device computes: both are
        # chosen side by side because device and link work at the same time.
        in_place = frame.plan.boundary == 0 or times.computing.is_short
        little = times.encoding.is_short or (
            not in_place and times.encoding.is_little_beside(times.computing)
        )
        encode = encode and little and not self._half.streams

        def compute() -> EdgePart:
            if frame.may_expire and frame.left_ms <= 0:
                raise FrameExpiredError("its budget ran out before the device came to it")
            part = self._half.compute(frame.plan, frame.inputs)
            if not encode:
                return part
            try:
                return self._half.encode(frame.plan, part)
            except Exception as error:  # noqa: BLE001 - it is told where the frame is encoded
                return replace(part, failed=error)

        part = await self._on(self._threads.compute, in_place, compute)
        times.computing.took(part.edge_ms)
        if part.tensors:
            times.encoding.took(part.encode_ms)
        return part

    async def encode(self, frame: Frame, part: EdgePart) -> EdgePart:
        """The same with what goes to the cloud; raises what encoding it does."""
        if part.failed is not None:
            raise part.failed
        if part.tensors:
            return part
        encoding = self._times_of(frame).encoding
        in_place = encoding.is_short and not self._half.streams
        part = await self._on(
            self._threads.encode, in_place, lambda: self._half.encode(frame.plan, part)
        )
        encoding.took(part.encode_ms)
        return part

    async def as_key_frame(self, frame: Frame, part: EdgePart) -> EdgePart:
        """The same frame once more, without what the worker lacks."""
        return await self._on(
            self._threads.encode, False, lambda: self._half.as_key_frame(frame.plan, part)
        )

    def _times_of(self, frame: Frame) -> _WorkTimes:
        if len(self._times) > MOST_REMEMBERED:
            self._times.clear()
        return self._times.setdefault((frame.plan, frame.batch), _WorkTimes())

    async def _on(self, thread: Executor, in_place: bool, work: Callable[[], T]) -> T:
        if in_place:
            return work()
        try:
            working = asyncio.get_running_loop().run_in_executor(thread, work)
        except RuntimeError:  # its threads have ended
            raise AgentError("the agent is closed") from None
        return await working
