"""An engine on a GPU that is played: what times, watchdog and frames see of a device."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch
from patience import until
from splitpoint.cloud.compute.choose_form import capture_sizes
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.loaded_model import LoadedModel
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.engine import executor, model_trials
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from standin_cuda import ILLEGAL_ADDRESS, StandInCuda

STEP_MS = 20.0
Answers = list["dict[str, Array] | FrameError"]


class Played:
    """A model on a GPU, an engine that has it, and what a client sends."""

    def __init__(self, bundle: Bundle, cuda: StandInCuda, engine: Engine) -> None:
        self.cuda, self.engine, self.bundle = cuda, engine, bundle
        self.boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
        self.chain = GpuChain(bundle, cuda.gpu())
        segments = len(self.chain)
        self.model = LoadedModel(
            bundle=bundle,
            runner=Runner(self.chain, self.boundaries, (1, 2, 4)),
            times=CloudTimes(segment_ms=(STEP_MS,) * segments),
            batch_times=BatchTimes([{1: STEP_MS, 4: STEP_MS}] * segments, 4, padded=True),
            boundaries=self.boundaries,
            codecs=codecs_of(bundle.manifest, bundle.folder),
        )
        self.answers: Answers = []
        self.broke = 0

    async def load(self) -> None:
        said: list[str] = []
        await self.engine.on_compute_thread(
            capture_sizes, self.bundle, self.chain, (1, 2, 4), said.append, lambda: None
        )
        assert not said

    def send(self, seed: int = 0, budget_s: float = float("inf"), *, boundary: int = 0) -> Request:
        values = {self.boundaries[0][0].name: photo(seed)}
        if boundary:
            values = {
                spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype)
                for spec in self.boundaries[boundary]
            }
        request = Request(
            model=self.model,
            boundary=boundary,
            samples=1,
            values=values,
            client=f"client {seed}",
            deadline_s=time.perf_counter() + budget_s,
            broke=self._broke,
            answer=lambda request, result: self.answers.append(result),
        )
        self.engine.submit(request)
        return request

    def is_taken(self, seed: int, budget_s: float = float("inf")) -> bool:
        """Whether it is, and not refused because it would be late."""
        try:
            self.send(seed, budget_s)
        except FrameError:
            return False
        return True

    async def answered(self, count: int) -> Answers:
        await until(lambda: len(self.answers) >= count, f"{count} answers")
        return self.answers

    def _broke(self) -> None:
        self.broke += 1


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 24, 24, 3)).astype(np.uint8)


@pytest.fixture
async def played(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    monkeypatch.setattr(executor, "WATCH_S", 0.02)
    monkeypatch.setattr(model_trials, "FIRST_PAUSE_S", 0.05)
    engine = Engine(max_batch=4, max_queued_bytes=1 << 40, hung_s=60, on_gpu=True)
    engine.start()
    found = Played(small_bundle, StandInCuda(), engine)
    await found.load()
    yield found
    found.cuda.hangs.clear()
    await engine.stop()


def statuses(answers: Answers) -> list[int]:
    return [one.status if isinstance(one, FrameError) else pb.OK for one in answers]


async def test_steps_take_what_the_device_takes(played: Played) -> None:
    """Of a batch that takes 20 ms a segment, each launch takes well under one."""
    slow_replays(played)
    for number in range(6):
        played.send(number)
        await played.answered(number + 1)
    load = played.engine.load(played.model)
    assert set(statuses(played.answers)) == {pb.OK}
    assert load.utilisation > 0.3, "the device computed nearly all the time"
    assert load.slowdown > 0.8, "it takes what was measured"


async def test_a_frame_joins_a_batch_at_a_boundary_that_the_device_has_not_reached(
    played: Played,
) -> None:
    """To launch all segments takes no time, and nobody could join what is launched."""
    slow_replays(played)
    last = len(played.chain) - 1
    replays = played.cuda.calls.count(("splitpoint-compute", "replay"))
    first = played.send(1)
    await until(lambda: played.cuda.calls.count(("splitpoint-compute", "replay")) > replays)
    second = played.send(2, boundary=last)
    assert set(statuses(await played.answered(2))) == {pb.OK}
    assert [first.batch_computed, second.batch_computed] == [2, 2]


async def test_no_more_is_taken_than_the_device_can_do_in_time(played: Played) -> None:
    slow_replays(played)
    for number in range(8):  # what it has seen would make it believe that it is fast
        played.send(number)
        await played.answered(number + 1)
    played.answers.clear()
    budget_s = 2.5 * len(played.chain) * STEP_MS / 1e3
    taken = sum(played.is_taken(number, budget_s) for number in range(40))
    assert 1 <= taken <= 8, "two batches of four fit into that time"


async def test_all_of_it_happens_on_the_compute_thread(played: Played) -> None:
    for number in range(3):
        played.send(number)
    await played.answered(3)
    assert {thread for thread, _ in played.cuda.calls} == {"splitpoint-compute"}


async def test_nothing_is_captured_while_frames_are_served(played: Played) -> None:
    captures = len(played.cuda.graphs)
    for number in range(7):
        played.send(number)
    await played.answered(7)
    assert set(statuses(played.answers)) == {pb.OK}
    assert len(played.cuda.graphs) == captures
    assert not played.cuda.races


async def test_a_gpu_that_hangs_is_left_to_another_process(played: Played) -> None:
    """Another thread would wait in the same stream, and answer nobody."""
    engines = Engines([played.engine])
    await engines.load_model(lambda number: played.model)
    threads = threading.active_count()
    played.engine.executor.hung_s = 0.2
    played.cuda.hangs.set()
    for number in range(6):  # four of them in the batch, two behind it
        played.send(number)
    answers = await played.answered(6)
    assert set(statuses(answers)) <= {pb.INTERNAL, pb.STOPPING}
    assert statuses(answers).count(pb.INTERNAL) >= 1
    assert "did not come back" in str(answers[0])
    assert "did not come back" in engines.lost
    assert not engines.can_compute
    assert played.broke == 0, "a frame that comes again is to be computed"
    with pytest.raises(FrameError, match="nothing can be computed"):
        played.send()
    with pytest.raises(ServeError, match="the device is lost"):
        await played.engine.on_compute_thread(lambda: 1)
    await asyncio.sleep(0.1)
    assert played.engine.restarts == 0
    assert threading.active_count() <= threads


async def test_a_gpu_that_fails_for_good_is_left_and_nobody_is_blamed(played: Played) -> None:
    engines = Engines([played.engine])
    await engines.load_model(lambda number: played.model)
    go_on = threading.Event()
    busy = asyncio.create_task(played.engine.on_compute_thread(go_on.wait, 60))
    await asyncio.sleep(0)
    for number in range(4):  # one batch
        played.send(number)
    before = len(played.cuda.calls)
    played.cuda.broken = ILLEGAL_ADDRESS
    go_on.set()
    await busy
    answers = await played.answered(4)
    assert set(statuses(answers)) == {pb.INTERNAL}
    assert "illegal memory access" in engines.lost
    assert not engines.can_compute
    assert not played.is_taken(1)
    assert played.broke == 0
    tried = [what for _, what in played.cuda.calls[before:]].count("pinned")
    assert tried == 1, "it is not tried again in halves"


async def test_of_several_gpus_the_others_go_with_one_that_is_lost(played: Played) -> None:
    other = Engine(max_batch=4, max_queued_bytes=1 << 40)
    engines = Engines([other, played.engine])
    await engines.load_model(lambda number: played.model)
    assert engines.can_compute
    played.cuda.broken = ILLEGAL_ADDRESS
    played.send()
    await until(lambda: engines.lost)
    assert not engines.can_compute
    assert played.broke == 0, "it was alone in its step, and not at fault"
    other.start()
    await other.stop()


async def test_a_device_that_fails_in_a_call_is_lost_too(played: Played) -> None:
    """As when a model is loaded from a watched folder, or measured again."""
    played.cuda.broken = ILLEGAL_ADDRESS
    with pytest.raises((ServeError, torch.AcceleratorError)):
        await played.load()
    await until(lambda: played.engine.lost)
    assert not played.engine.can_compute(played.model)


async def test_a_frame_that_fails_on_a_gpu_fails_alone(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, first = GpuChain.step, []

    def poisoned(self: GpuChain, index: int, state: dict[str, torch.Tensor]) -> object:
        if not first:
            first.append(1)
            raise ValueError("a frame of its own")
        return step(self, index, state)

    monkeypatch.setattr(GpuChain, "step", poisoned)
    played.send(1)
    played.send(2)
    answers = await played.answered(2)
    assert statuses(answers).count(pb.OK) >= 1
    assert not played.engine.lost


async def test_a_batch_without_memory_is_computed_in_smaller_ones(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = GpuChain.step

    def short(self: GpuChain, index: int, state: dict[str, torch.Tensor]) -> object:
        if max(len(value) for value in state.values()) > 1:
            raise ValueError("operation failed") from torch.OutOfMemoryError("CUDA out of memory")
        return step(self, index, state)

    monkeypatch.setattr(GpuChain, "step", short)
    for number in range(4):
        played.send(number)
    assert set(statuses(await played.answered(4))) == {pb.OK}
    assert played.broke == 0


async def test_nobody_is_blamed_for_want_of_memory_that_shows_as_something_else(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: GpuChain, index: int, state: dict[str, torch.Tensor]) -> object:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error")

    monkeypatch.setattr(GpuChain, "step", full)
    played.send()
    assert statuses(await played.answered(1)) == [pb.INTERNAL]
    assert played.broke == 0
    assert not played.engine.lost


def slow_replays(played: Played) -> None:
    """From now on a segment takes `STEP_MS` of the device, by what it launches for a frame."""
    chain, streams = played.chain, {graph.stream for graph in played.cuda.graphs}

    def launched() -> int:
        return sum(stream.launched for stream in streams if stream is not None)

    before = launched()
    state = chain.place({played.boundaries[0][0].name: photo(0)})
    for segment in range(len(chain)):
        state |= chain.step(segment, state)
    played.cuda.launch_s = STEP_MS / 1e3 * len(chain) / (launched() - before)
