"""What Prometheus is told after real traffic, and that the dashboard asks for nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from local_worker import local_worker
from prometheus_client.parser import text_string_to_metric_families
from raw_client import RawClient
from splitpoint.cloud import session
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.figures import Spread
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.gpu_state import GpuReading
from splitpoint.proto import splitpoint_pb2 as pb

DASHBOARD = Path(__file__).parents[2] / "deploy" / "worker" / "grafana-worker.json"
PREFIX = "splitpoint_worker_"


class FakeGpu:
    def __init__(self, utilisation: float | None) -> None:
        self._utilisation = utilisation

    def read(self) -> GpuReading:
        return GpuReading(
            memory_used_bytes=3 << 30, memory_total_bytes=80 << 30, utilisation=self._utilisation
        )


@pytest.fixture
def worker_options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(
        session, "gpu_states", lambda devices: [FakeGpu(0.4), FakeGpu(0.4), FakeGpu(None)]
    )
    return {"metrics": "127.0.0.1:0"}


async def scrape(worker: Worker) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://{worker.metrics_address}/metrics", timeout=10) as page:
            return str(page.read().decode())

    return await asyncio.to_thread(read)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    found = [
        number for (each, has), number in samples(text).items()
        if each == PREFIX + name and labels.items() <= dict(has).items()
    ]  # fmt: skip
    assert found, (name, labels)
    return sum(found)


async def traffic(worker: Worker) -> int:
    """Good frames at two boundaries, bad ones and refused streams; the bytes that were sent."""
    nbytes = 0
    async with RawClient(worker) as client:
        await client.hello(client="<client>", model="<model>")
        for number in range(1, 6):
            message = client.frame(number, boundary=number % 2)
            assert (await client.ask(message)).status == pb.OK
            nbytes += len(message)
        for message, status in (
            (client.frame(7, boundary=1, codec="q8"), pb.OK),
            (b"\xff\xff", pb.MALFORMED),
            (client.frame(8)[:-9] + bytes(9), pb.MALFORMED),
        ):
            assert (await client.ask(message)).status in (status, pb.CORRUPT, pb.MISMATCH)
            nbytes += len(message)
        last = pb.Frame(id=9, boundary=4_000_000_000, codec="<codec>")
        message = pb.ClientMessage(frame=last).SerializeToString()
        assert (await client.ask(message)).status == pb.OUT_OF_RANGE
        nbytes += len(message)
        last.boundary = 0
        message = pb.ClientMessage(frame=last).SerializeToString()
        assert (await client.ask(message)).status == pb.UNKNOWN_CODEC
        nbytes += len(message)
        assert value(await scrape(worker), "open_streams") == 1
    for fields in ({"digest": "<digest>"}, {"protocol": 99}, {"protocol": 98}):
        async with RawClient(worker) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.hello(**fields)
    return nbytes


async def test_figures_after_traffic(worker: Worker, small_bundle: Bundle) -> None:
    before = await scrape(worker)
    # A rate needs the zero before the first one.
    assert value(before, "frames_total", boundary="0", status="overloaded") == 0
    nbytes = await traffic(worker)
    text = await scrape(worker)
    name = {"model": "small", "digest": small_bundle.digest[:12]}
    assert value(text, "frames_total", boundary="0", status="ok", **name) == 2
    assert value(text, "frames_total", boundary="1", status="ok", **name) == 4
    assert value(text, "frames_total", boundary="none", status="malformed", **name) >= 1
    assert value(text, "frames_total", boundary="none", status="out_of_range", **name) == 1
    assert value(text, "frames_total", boundary="0", status="unknown_codec", **name) == 1
    assert value(text, "frames_total") == 10
    assert value(text, "received_bytes_total") == nbytes
    assert value(text, "sent_bytes_total") > 10 * 20
    assert value(text, "refusals_total", reason="protocol") == 2
    assert value(text, "refusals_total", reason="unknown_model") == 1
    assert value(text, "open_streams", **name) == 0
    for stage in ("queue", "decode", "compute"):
        assert value(text, "stage_seconds_count", boundary="1", stage=stage) == 4
        assert value(text, "stage_seconds_bucket", boundary="1", stage=stage, le="+Inf") == 4
    assert 0 < value(text, "stage_seconds_sum", stage="compute") < 60
    assert value(text, "batch_samples_sum", boundary="0") == 2
    assert value(text, "batch_samples_bucket", boundary="0", le="1.0") == 2
    boundaries = len(small_bundle.manifest.boundaries)
    waits = [has for each, has in samples(text) if each == PREFIX + "predicted_wait_seconds"]
    assert len(waits) == boundaries - 1
    assert value(text, "engine_restarts_total") == value(text, "engine_errors_total") == 0
    assert value(text, "ingest_restarts_total") == 0
    assert value(text, "can_compute") == 1
    assert value(text, "gpu_utilisation", gpu="1") == 0.4
    assert value(text, "gpu_memory_bytes", gpu="2") == 80 << 30
    assert {"gpu": "2"}.items() not in [
        labels for name, labels in samples(text) if name == PREFIX + "gpu_utilisation"
    ], "of a slice of a GPU it is not known"
    assert value(text, "queued_bytes") == value(text, "queued_frames") == 0


async def test_nothing_that_a_client_says_becomes_a_label(worker: Worker) -> None:
    before = {key for key in samples(await scrape(worker)) if "refusals" not in key[0]}
    await traffic(worker)
    text = await scrape(worker)
    after = {key for key in samples(text) if "refusals" not in key[0]}
    assert after == before
    assert "<" not in text


async def test_the_dashboard_asks_for_what_is_there(worker: Worker) -> None:
    await traffic(worker)
    names = {name for name, _ in samples(await scrape(worker))}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in dashboard["templating"]["list"][1:]]
    assert len(asked) > 20
    used = set()
    for expression in asked:
        metrics = set(re.findall(r"\b(?:splitpoint|process)_\w+", expression))
        assert metrics, expression
        assert metrics <= names, expression
        used |= metrics
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if PREFIX in name}
    assert ours == {re.sub(r"_(bucket|sum|count)$", "", name) for name in used if PREFIX in name}
    boxes = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(box["x"], box["y"]) for box in boxes}) == len(boxes)
    assert all(box["x"] + box["w"] <= 24 for box in boxes)


async def test_where_metrics_cannot_listen(small_bundle: Bundle, worker: Worker) -> None:
    for listen, words in (
        (worker.metrics_address, "metrics cannot listen"),
        ("nowhere", "no HOST:PORT"),
        ("127.0.0.1:70000", "no HOST:PORT"),
    ):
        with pytest.raises(ServeError, match=words):
            async with local_worker(small_bundle, metrics=listen):
                pass


def test_spread_counts_up_to_each_bound() -> None:
    spread = Spread((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        spread.add(number)
    assert spread.counts == [2, 2, 1]
    assert spread.total == 14
