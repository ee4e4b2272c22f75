"""What tests of the worker share: a model that seems slow, and an engine without a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import local_worker
import pytest
from splitpoint.cloud.engine import executor, model_trials
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.worker import Worker


@pytest.fixture(params=[0, 2], ids=["one-process", "ingest-2"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do all by themselves, and then with ingest processes beside them."""
    monkeypatch.setattr(local_worker, "INGEST", request.param)


@pytest.fixture
def slow_times(worker: Worker) -> None:
    """The worker says that its model takes 10 s a segment."""
    for digest, model in worker.models.items():
        times = BatchTimes([{1: 10.0, 64: 10.0}] * len(model.batch_times), 64)
        slower = worker.models[digest] = replace(model, batch_times=times)
        worker.backend.engine.copies[slower] = [slower]


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """One that notices at once what goes wrong. It takes `SlowModel`s."""
    monkeypatch.setattr(executor, "WATCH_S", 0.02)
    monkeypatch.setattr(model_trials, "FIRST_PAUSE_S", 0.05)
    running = Engine(max_batch=8, max_queued_bytes=1 << 40, hung_s=60)
    running.start()
    yield running
    await running.stop()
