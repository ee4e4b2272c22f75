"""A model whose loading does not come back: nobody waits for it for ever, whatever it hangs in."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_worker import local_worker
from patience import PATIENCE_S, until
from processes import rest_of
from raw_client import RawClient
from slow_model import SlowModel, computes
from splitpoint.cloud import session
from splitpoint.cloud.engine import executor
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.errors import DeviceLost, Interrupted
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

HUNG_S = 0.3

STUCK = """
import time
from splitpoint.cli.main import main
from splitpoint.cloud import backend
from splitpoint.cloud.compute import load as load_model
from splitpoint.cloud.engine import executor
from splitpoint.cloud.engine.engine import Engine
executor.CALL_SLOW_S, executor.CALL_HUNG_S = 0.3, 1.0
backend.Engine = lambda **named: Engine(**named | {"on_gpu": ON_GPU})
load_model.measure_server = lambda *_, **__: time.sleep(1000)
main()
"""


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "WATCH_S", 0.02)
    monkeypatch.setattr(executor, "CALL_SLOW_S", HUNG_S / 3)
    monkeypatch.setattr(executor, "CALL_HUNG_S", HUNG_S)


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What hangs waits for it."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_that_hangs_is_left_behind(
    engine: Engine, stuck: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[object] = []

    def load() -> None:
        engine.came_further("loading large")
        stuck.wait(PATIENCE_S)
        try:
            engine.came_further("timing batches of 1")
        except Interrupted as error:
            ended.append(error)
            raise

    words = rf"no step came to an end in {HUNG_S} s \(loading large\)"
    with pytest.raises(DeviceLost, match=words):
        await asyncio.wait_for(engine.on_compute_thread(load), PATIENCE_S)
    model = SlowModel(2, ms=1)
    await until(lambda: engine.can_compute(model))
    assert await computes(engine, model)
    assert engine.restarts == 1
    assert not engine.lost
    assert any("an end in 0.1 s (loading large)" in line for line in caplog.messages)
    stuck.set()
    await until(lambda: ended)  # it does not go on beside what computes now
    assert await engine.on_compute_thread(lambda: 5) == 5


async def test_what_comes_further_may_take_as_long_as_it_likes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> int:
        end_s = time.perf_counter() + 3 * HUNG_S
        while time.perf_counter() < end_s:
            engine.came_further()
            time.sleep(HUNG_S / 30)
        return 7

    # A machine that stands still for as long is no reason: that the limit is kept is tested above.
    monkeypatch.setattr(executor, "CALL_HUNG_S", 2 * HUNG_S)
    assert await engine.on_compute_thread(load) == 7
    assert engine.restarts == 0


async def test_what_stands_still_with_all_the_process_does_not_hang(
    engine: Engine, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "MOST_LATE_S", 0.1)
    monkeypatch.setattr(executor, "CALL_HUNG_S", 0.5)
    began = threading.Event()

    def load() -> bool:
        began.set()
        return stuck.wait(PATIENCE_S)

    loading = asyncio.create_task(engine.on_compute_thread(load))
    await until(began.is_set)
    threading.Timer(1.1, stuck.set).start()
    time.sleep(1)  # noqa: ASYNC251 - nothing goes on meanwhile
    assert await loading
    assert engine.restarts == 0


async def test_on_a_gpu_the_process_is_to_begin_anew(stuck: threading.Event) -> None:
    engine = Engine(max_batch=4, max_queued_bytes=1 << 40, hung_s=60, on_gpu=True)
    engine.start()
    model, answers = SlowModel(1, ms=1), []
    loading = asyncio.create_task(engine.on_compute_thread(stuck.wait, PATIENCE_S))
    await asyncio.sleep(0)
    engine.submit(model.request(0, answers))
    with pytest.raises(DeviceLost, match=r"the device is lost: no step came to an end"):
        await asyncio.wait_for(loading, PATIENCE_S)
    await until(lambda: answers)
    assert isinstance(answers[0], FrameError)
    assert answers[0].status == pb.STOPPING
    assert "no step came to an end" in engine.lost
    assert engine.restarts == 0
    await asyncio.wait_for(engine.stop(), PATIENCE_S)


async def test_compilers_may_be_silent_for_longer_at_the_start_alone(
    small_bundle: Bundle, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a device that hangs an hour later would be noticed an hour too late."""
    monkeypatch.setattr(session, "check_tuning", lambda minutes, device: None)
    monkeypatch.setattr(executor, "CALL_HUNG_S", PATIENCE_S)
    async with local_worker(small_bundle, tune_minutes=60.0) as worker:
        (engine,) = worker.backend.engine.engines
        monkeypatch.setattr(executor, "CALL_HUNG_S", HUNG_S)
        with pytest.raises(DeviceLost, match="no step came to an end"):
            await asyncio.wait_for(engine.on_compute_thread(stuck.wait, PATIENCE_S), PATIENCE_S / 2)


async def test_a_compiler_may_be_silent_for_longer(stuck: threading.Event) -> None:
    engine = Engine(max_batch=4, max_queued_bytes=1 << 40, hung_s=60, compiling_s=PATIENCE_S)
    engine.start()
    loading = asyncio.create_task(engine.on_compute_thread(stuck.wait, PATIENCE_S))
    await asyncio.sleep(4 * HUNG_S)
    assert not loading.done()
    stuck.set()
    assert await loading
    await engine.stop()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_worker_that_hangs_at_its_start_ends(small_bundle: Bundle, on_gpu: bool) -> None:
    """Also where nothing of Python runs in the thread that loads."""
    command = [sys.executable, "-c", STUCK.replace("ON_GPU", str(on_gpu)), "serve"]
    process = subprocess.Popen(
        [*command, str(small_bundle.folder), "--listen", "127.0.0.1:0", "--runtime", "torch",
         "--measure"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = rest_of(process)[1]
        assert process.returncode == 1, said
        assert "no step came to an end in 0.3 s (small: measuring what segments and " in said
        assert "no step came to an end in 1 s (small: measuring what segments and " in said
        assert "error: " in said
        assert "Traceback" not in said
    finally:
        process.kill()


async def test_a_watched_bundle_that_hangs_is_not_served_and_the_others_are(
    small_bundle: Bundle,
    newer_bundle: Bundle,
    tmp_path: Path,
    stuck: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load = session.load_served_model

    def loading(folder: Path, *args: Any, **named: Any) -> Any:
        if folder.parent == tmp_path:
            named["progress"]("loading newer")
            stuck.wait(PATIENCE_S)
        return load(folder, *args, **named)

    monkeypatch.setattr(executor, "CALL_HUNG_S", PATIENCE_S)
    async with local_worker(small_bundle, watch=tmp_path) as worker, RawClient(worker) as client:
        await client.hello()
        monkeypatch.setattr(session, "load_served_model", loading)
        monkeypatch.setattr(executor, "CALL_HUNG_S", HUNG_S)
        shutil.copytree(newer_bundle.folder, tmp_path / "newer.split")
        await until(lambda: any("newer.split is not served" in line for line in caplog.messages))
        await until(lambda: worker.backend.engine.can_compute)
        assert (await client.ask(client.frame(1))).status == pb.OK
        assert list(worker.models) == [small_bundle.digest]
