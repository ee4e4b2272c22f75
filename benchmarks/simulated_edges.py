"""Many simulated edges in one process: their frames are encoded once, and only sent and counted.

Each has its own connection and keeps one frame under way (closed loop), or sends at random times
whatever becomes of its frames (open loop).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from splitpoint.codec import SplitpointError
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.proto.frames import build_frame
from splitpoint.proto.limits import MESSAGE_CEILING_BYTES
from splitpoint.proto.status import OverloadedError

BUDGET_MS = 10_000.0
FINISH_S = 0.2  # what a device is busy with a frame that the worker has refused
# Of the largest magnitude: two scores that are each off by what a number format may be off by.
NEAR = 0.02


@dataclass(frozen=True)
class Payload:
    """A frame as it crosses one boundary, and the unsplit model's answer to it."""

    boundary: int
    codec: str
    tensors: list[object]
    top: int
    near: float = 0.0

    def on(self, device: str) -> Payload:
        """For a worker on that device, where a GPU may compute in a shorter number format."""
        return self if device == "cpu" else replace(self, near=NEAR)

    def is_answer(self, output: np.ndarray) -> bool:
        """Whether the unsplit model's best is the best here, but for `near` of the magnitude."""
        if not self.near:
            return int(output.argmax()) == self.top
        return bool(output[self.top] >= output.max() - self.near * np.abs(output).max())


@dataclass
class Load:
    """What became of the frames of one run."""

    ms: list[float] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # why, frame by frame
    wrong: int = 0
    last_s: float = 0.0  # when the latest answer that counts came
    seconds: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.ms) / self.seconds

    def percentile(self, percent: float) -> float:
        """Of the answers' milliseconds."""
        return float(np.percentile(self.ms, percent)) if self.ms else float("nan")


async def closed_loop(
    worker: str, digest: str, payloads: Sequence[Payload], edges: int, seconds: float, warm_s: float
) -> Load:
    """Each edge sends the next frame when it has its answer. Edge i cuts as payload i does.

    It lasts until there is an answer, even where that takes longer than `seconds`.
    """
    load = Load()
    streams, channels = await _connect(worker, digest, edges)
    begin_s = time.perf_counter() + warm_s
    end_s = begin_s + seconds

    async def edge(number: int, stream: FrameStream) -> None:
        payload = payloads[number % len(payloads)]
        while time.perf_counter() < end_s or not (load.ms or load.failed):
            if not await _ask(stream, payload, load, begin_s, end_s, BUDGET_MS):
                await asyncio.sleep(FINISH_S)

    await asyncio.gather(*(edge(n, stream) for n, stream in enumerate(streams)))
    load.seconds = max(seconds, load.last_s - begin_s)
    await _close(streams, channels)
    return load


async def open_loop(
    worker: str, digest: str, payloads: Sequence[Payload], edges: int, per_s: float, seconds: float,
    warm_s: float, budget_ms: float = BUDGET_MS,
) -> Load:  # fmt: skip
    """Frames come at random, `per_s` a second in all, however the worker keeps up."""
    load, chance = Load(), random.Random(0)
    streams, channels = await _connect(worker, digest, edges)
    begin_s = time.perf_counter() + warm_s
    end_s = begin_s + seconds
    at_s, tasks = time.perf_counter(), set()
    number = 0
    while at_s < end_s:
        at_s += chance.expovariate(per_s)
        await asyncio.sleep(max(at_s - time.perf_counter(), 0))
        payload, stream = payloads[number % len(payloads)], streams[number % edges]
        number += 1
        task = asyncio.create_task(_ask(stream, payload, load, begin_s, end_s, budget_ms))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    load.seconds = seconds
    await _close(streams, channels)
    return load


async def _connect(
    worker: str, digest: str, edges: int
) -> tuple[list[FrameStream], list[WorkerChannel]]:
    channels = [WorkerChannel(worker, MESSAGE_CEILING_BYTES) for _ in range(edges)]
    streams = [await channel.open_stream("", digest, f"edge {n}")
               for n, channel in enumerate(channels)]  # fmt: skip
    return streams, channels


async def _close(streams: Sequence[FrameStream], channels: Sequence[WorkerChannel]) -> None:
    for stream in streams:
        await stream.close()
    for channel in channels:
        await channel.close()


async def _ask(
    stream: FrameStream, payload: Payload, load: Load, begin_s: float, end_s: float,
    budget_ms: float,
) -> bool:  # fmt: skip
    """Whether the worker took the frame."""
    start_s = time.perf_counter()
    try:
        answer = await stream.ask(
            lambda frame_id, left_ms: build_frame(
                id=frame_id, boundary=payload.boundary, codec=payload.codec,
                tensors=payload.tensors, budget_ms=left_ms,
            ),
            budget_ms,
        )  # fmt: skip
    except OverloadedError:
        if start_s >= begin_s:
            load.refused_ms.append(1e3 * (time.perf_counter() - start_s))
        return False
    except SplitpointError as error:
        if start_s >= begin_s:
            load.failed.append(str(error))
        return True
    now_s = time.perf_counter()
    output = np.frombuffer(answer.reply.outputs[0].payload, np.float32)
    load.wrong += not payload.is_answer(output)
    if begin_s <= now_s and (now_s <= end_s or not load.ms):  # the first one counts in any case
        load.ms.append(1e3 * (now_s - start_s))
        load.last_s = now_s
        load.batch.append(answer.reply.times.batch)
    return True
