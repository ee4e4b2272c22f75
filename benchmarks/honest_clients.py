"""Honest clients of every kind: cuts, codecs, batch sizes, cancels, short budgets, reconnects.

Every answer is compared with the segments run here on the very tensors that the worker decodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from splitpoint.codec import Array, SplitpointError, codec_named
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.transport.credentials import Credentials
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors
from splitpoint.proto.limits import MESSAGE_CEILING_BYTES
from splitpoint.proto.status import (
    FrameExpiredError,
    OverloadedError,
    UnreachableError,
)

CODECS = ("raw", "fp16", "q8", "q4", "jpeg", "png")
BATCHES = (1, 1, 2, 5, 16)
TOLERANCE = 1e-3  # of the largest output: two runtimes, other batch sizes
# Longer than any wait that a worker takes a frame for: who is let in must be answered.
BUDGET_MS = 15_000.0


@dataclass(frozen=True)
class Question:
    """A frame that can be sent as it is, and the right answer, `[batch, …]` of the first output."""

    boundary: int
    codec: str
    tensors: list[pb.Tensor]
    answer: Array


def questions_of(bundle: Bundle, batches: Sequence[int] = BATCHES) -> list[Question]:
    """One for each boundary, codec that it supports, and batch size."""
    manifest, chain = bundle.manifest, OnnxChain(bundle)
    inputs = synthetic_samples(manifest).inputs
    output = manifest.boundaries[-1].tensors[0].name
    for segment in range(len(chain)):
        chain.load(segment)
    found = []
    for batch in sorted(set(batches)):
        chosen = [inputs[number % len(inputs)] for number in range(batch)]
        state = {spec.name: np.concatenate([each[spec.name] for each in chosen], spec.batch_dim)
                 for spec in manifest.boundaries[0].tensors}  # fmt: skip
        for boundary in range(len(chain)):
            specs = manifest.boundaries[boundary].tensors
            for name in CODECS:
                codec = codec_named(name)
                if not all(codec.supports(spec) for spec in specs):
                    continue
                tensors = encode_tensors(state, specs, codec)
                decoded = {spec.name: codec.decode(tensor.payload, spec, batch)
                           for spec, tensor in zip(specs, tensors, strict=True)}  # fmt: skip
                answer = finish(chain, boundary, decoded)[output]
                found.append(Question(boundary, name, tensors, answer))
            state = state | chain.step(boundary, state)
    return found


def finish(chain: OnnxChain, boundary: int, values: dict[str, Array]) -> dict[str, Array]:
    """The outputs by name, from the tensors at `boundary` on."""
    for segment in range(boundary, len(chain)):
        values = values | chain.step(segment, values)
    return values


def is_right(reply: pb.Reply, question: Question) -> bool:
    tensor = reply.outputs[0]
    output = np.frombuffer(tensor.payload, question.answer.dtype).reshape(tensor.shape)
    if output.shape != question.answer.shape:
        return False
    error = np.abs(output - question.answer).max()
    return bool(error <= TOLERANCE * np.abs(question.answer).max())


@dataclass
class Tally:
    """What became of the frames; words in capitals are what must not happen."""

    outcomes: Counter[str] = field(default_factory=Counter)

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1


class HonestClient:
    """One device: it sends the next frame a random while after the last answer.

    `habit` is what it does beside that: nothing, cancel some frames, give some hardly any budget,
    or begin again on a new connection now and then.
    """

    HABITS = ("steady", "cancels", "hurried", "reconnects")

    def __init__(
        self, server: str, digest: str, token: str, questions: Sequence[Question], number: int
    ) -> None:
        self._server, self._digest = server, digest
        self._credentials = Credentials(token=token)
        self._chance = random.Random(number)
        batch = BATCHES[number % len(BATCHES)]
        fitting = [q for q in questions if q.answer.shape[0] == batch]
        self._questions = self._chance.sample(fitting, min(len(fitting), 3))
        self._pause_s = 0.3 * batch
        self.habit = self.HABITS[number % len(self.HABITS)]
        self.name = f"honest {number}"

    async def run(self, tally: Tally, stop: asyncio.Event) -> None:
        """Until `stop`; every frame ends in `tally`, and so does a client that is not let in."""
        while not stop.is_set():
            channel = WorkerChannel(self._server, MESSAGE_CEILING_BYTES, self._credentials)
            try:
                stream = await channel.open_stream("", self._digest, self.name)
            except SplitpointError as error:
                tally.count(f"NOT LET IN: {str(error)[:60]}")
                await channel.close()
                await asyncio.sleep(1)
                continue
            frames = self._chance.randint(5, 15) if self.habit == "reconnects" else None
            try:
                for number in itertools.count():
                    if stop.is_set() or number == frames or stream.session.broken is not None:
                        break
                    await self._one(stream, tally)
                    pause_s = self._chance.uniform(0.5, 1.5) * self._pause_s
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(stop.wait(), pause_s)
            finally:
                await stream.close()
                await channel.close()

    async def _one(self, stream: FrameStream, tally: Tally) -> None:
        question = self._chance.choice(self._questions)
        if self.habit == "cancels" and self._chance.random() < 0.5:
            asking = asyncio.create_task(ask(stream, question, BUDGET_MS))
            await asyncio.sleep(self._chance.uniform(0, 0.05))
            asking.cancel()
            done = (await asyncio.gather(asking, return_exceptions=True))[0]
            tally.count("cancelled" if isinstance(done, asyncio.CancelledError) else str(done))
            return
        hurried = self.habit == "hurried" and self._chance.random() < 0.5
        budget_ms = self._chance.uniform(2, 40) if hurried else BUDGET_MS
        tally.count(await ask(stream, question, budget_ms))


async def ask(stream: FrameStream, question: Question, budget_ms: float) -> str:
    """What became of one frame, in a word; a stream that was lost is in capitals."""
    try:
        answer = await stream.ask(
            lambda frame_id, left_ms: build_frame(
                id=frame_id, boundary=question.boundary, codec=question.codec,
                tensors=question.tensors, budget_ms=left_ms,
            ),
            budget_ms,
        )  # fmt: skip
    except OverloadedError:
        return "refused"
    except FrameExpiredError:
        return "late" if budget_ms < BUDGET_MS else "EXPIRED"
    except UnreachableError as error:
        return f"STREAM LOST: {str(error)[-60:]}"
    except SplitpointError as error:
        return f"FAILED: {str(error)[:60]}"
    return "right" if is_right(answer.reply, question) else "WRONG"


class Watched:
    """A client whose answers are timed; it asks at a rate, whatever became of the last."""

    def __init__(self, server: str, digest: str, token: str, question: Question) -> None:
        self._server, self._digest, self._question = server, digest, question
        self._credentials = Credentials(token=token)
        self.ms: list[float] = []
        self.tally = Tally()

    async def run(self, per_s: float, seconds: float) -> None:
        """Asks for so long, on a connection of its own."""
        channel = WorkerChannel(self._server, MESSAGE_CEILING_BYTES, self._credentials)
        stream = await channel.open_stream("", self._digest, "watched")
        asking: set[asyncio.Task[None]] = set()
        next_s = time.perf_counter()
        end_s = next_s + seconds
        while next_s < end_s:
            await asyncio.sleep(max(next_s - time.perf_counter(), 0))
            next_s += 1 / per_s
            task = asyncio.create_task(self._timed(stream))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
        await stream.close()
        await channel.close()

    async def _timed(self, stream: FrameStream) -> None:
        start_s = time.perf_counter()
        outcome = await ask(stream, self._question, BUDGET_MS)
        self.tally.count(outcome)
        if outcome == "right":
            self.ms.append(1e3 * (time.perf_counter() - start_s))
