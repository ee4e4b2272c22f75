"""Two replicas on Ray under load: one is killed, all are replaced, and no frame is the worse.

What needs no cluster is in `test_ray_parts.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from course import BACK_S, BUDGET_MS, Course, course, until_back
from ray_cluster import RayCluster, ray_cluster
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]  # make test-ray

SPLITS = (1, 2, 3)


@pytest.fixture(scope="module")
def cluster(small_bundle: Bundle) -> Iterator[RayCluster]:
    with ray_cluster(small_bundle.folder) as running:
        yield running


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


@asynccontextmanager
async def courses(
    cluster: RayCluster, pixels: np.ndarray, expected: np.ndarray, folder: Path
) -> AsyncIterator[list[Course]]:
    """An agent a split; when it ends, all of their frames are checked."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(course(
                EdgeAgent(cluster.address, split=str(split), codec="auto", budget_ms=BUDGET_MS,
                          cache=folder / str(split)),
                pixels, expected,
            ))
            for split in SPLITS
        ]  # fmt: skip


async def test_a_replica_is_killed_under_load(
    cluster: RayCluster, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Its frames are finished on their devices, the other replica goes on, Ray starts another."""
    async with courses(cluster, pixels, expected, tmp_path) as all_running:
        first, second = cluster.replicas()
        first.kill()
        for running in all_running:
            await until_back(running, asyncio.sleep(0))
        await asyncio.to_thread(cluster.wait_for, 2)
        assert second in cluster.replicas()
        await asyncio.sleep(BACK_S)
    # At most what three devices send in the time that it takes to find the other replica.
    assert sum(running.count(Outcome.LOCAL) for running in all_running) < 100


async def test_all_replicas_are_replaced_under_load(
    cluster: RayCluster, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    before = cluster.replicas()
    async with courses(cluster, pixels, expected, tmp_path) as all_running:
        await until_back(all_running[0], asyncio.to_thread(cluster.update))
        for running in all_running[1:]:
            await until_back(running, asyncio.sleep(0))
    for _ in range(100):
        if not any(process.is_running() for process in before):
            break
        await asyncio.sleep(0.2)
    assert not any(process.is_running() for process in before)


async def test_what_is_served_is_told(cluster: RayCluster, small_bundle: Bundle) -> None:
    channel = WorkerChannel(cluster.address)
    try:
        reply = await channel.describe()
    finally:
        await channel.close()
    assert [model.digest for model in reply.models] == [small_bundle.digest]
