"""What a run adds up to: percentiles, outcomes, energy, and what Prometheus is told."""

from __future__ import annotations

import pickle
import socket
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import free_port
from prometheus_client.parser import text_string_to_metric_families
from splitpoint.edge import AgentError, EdgeAgent, Outcome, Result, Stages
from splitpoint.edge.figures.quantiles import EXACT, Quantiles
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.figures.run_stats import RunStats
from splitpoint.edge.metrics import MetricsSink
from splitpoint.edge.sinks.sink import CallbackSink, Sink
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.meter import EnergyReading, NoMeter, no_reading
from splitpoint.partition.energy.power_model import PowerModel

ANSWER = {"output": np.zeros((1, 5), np.float32)}


def result(number: int, outcome: Outcome, ms: float = 10.0, bytes_up: int = 100) -> Result:
    answered = outcome in (Outcome.ANSWERED, Outcome.LOCAL)
    return Result(
        id=number,
        outcome=outcome,
        boundary=2,
        codec="q8",
        outputs=ANSWER if answered else {},
        stages_ms=Stages(edge=0.5 * ms, encode=0.1 * ms, uplink=0.4 * ms),
        total_ms=ms,
        bytes_up=bytes_up,
    )


@given(
    st.lists(st.floats(1e-2, 1e6), min_size=1, max_size=60),
    st.integers(1, 3),
    st.floats(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_percentiles_of_many_are_within_one_percent(
    values: list[float], copies: int, percent: float
) -> None:
    quantiles = Quantiles()
    many = values * (EXACT // len(values) + copies)
    for value in many:
        quantiles.add(value)
    found = quantiles.percentiles([percent])
    assert found is not None
    expected = np.percentile(many, percent, method="lower")
    assert found[0] == pytest.approx(expected, rel=0.011)


def test_percentiles_of_few_are_exact() -> None:
    quantiles = Quantiles()
    assert quantiles.percentiles([50]) is None
    values = np.random.default_rng(0).exponential(10, EXACT)
    for value in values:
        quantiles.add(value)
    assert quantiles.percentiles([50, 99]) == list(np.percentile(values, [50, 99]))


def test_a_long_run_takes_no_more_memory() -> None:
    quantiles = Quantiles()
    for value in np.random.default_rng(0).lognormal(3, 3, 30_000):
        quantiles.add(value)
    assert len(pickle.dumps(quantiles)) < 1500 * 8  # 30,000 numbers have 240,000 bytes
    assert quantiles.count == 30_000
    quantiles.add(0.0)


def test_counts_add_up() -> None:
    stats, seen = RunStats(), []
    sinks: list[Sink] = [stats, CallbackSink(seen.append)]
    ends = [Outcome.ANSWERED] * 5 + [Outcome.LOCAL, Outcome.EXPIRED, Outcome.FAILED]
    for number, outcome in enumerate(ends):
        for sink in sinks:
            sink.add(result(number, outcome, ms=10 * (number + 1)))
    for sink in sinks:
        sink.close()
    summary = stats.summary()
    assert summary["frames"] == len(ends) == len(seen) == sum(summary["outcomes"].values())
    assert summary["outcomes"] == {
        "answered": 5,
        "local": 1,
        "expired": 1,
        "failed": 1,
        "skipped": 0,
    }
    assert (summary["p50_ms"], summary["bytes_up"]) == (35.0, 800)  # of those with an answer
    assert stats.answers == 6
    assert RunStats().summary()["p99_ms"] is None


class FakeMeter:
    """Draws 3 W, at 2 W of which nobody looks between stop and start."""

    name, kind = "fake", "measured"

    def __init__(self, clock: list[float]) -> None:
        self._clock, self._began = clock, 0.0
        self.fails = False

    def describe(self) -> str:
        return "fake"

    def start(self) -> None:
        self._clock[0] += 0.5  # starting takes a while
        self._began = self._clock[0]

    def stop(self) -> EnergyReading:
        if self.fails:
            return no_reading("fake", "it was pulled out")
        mj = 3e3 * (self._clock[0] - self._began)
        return EnergyReading(mj=mj, kind="measured", meter="fake")


async def test_energy_is_measured_in_laps() -> None:
    clock = [0.0]
    meter = FakeMeter(clock)
    energy = RunEnergy(meter, lambda: 0.0, clock=lambda: clock[0])
    assert energy.reading.kind == "none"
    energy.start()
    began = clock[0]
    for _ in range(4):
        clock[0] += 10
        reading = await energy.read()
    clock[0] += 10
    reading = await energy.read(last=True)
    assert reading.kind == "measured"
    assert reading.mj == pytest.approx(3e3 * (clock[0] - began), rel=0.02)
    # A lap without a reading leaves no sum.
    meter.fails = True
    energy.start()
    assert (await energy.read()).kind == "none"
    meter.fails = False
    last = await energy.read(last=True)
    assert (last.mj, last.kind) == (None, "none")
    assert "pulled out" in last.warning


async def test_energy_of_a_model_is_modelled() -> None:
    clock, busy_ms = [0.0], [0.0]
    model = PowerModel(name="board", idle_w=1.0, busy_w=5.0, source="")
    energy = RunEnergy(model, lambda: busy_ms[0], clock=lambda: clock[0])
    energy.start()
    clock[0], busy_ms[0] = 10.0, 2000.0
    reading = await energy.read()
    assert (reading.mj, reading.kind, reading.meter) == (2 * 5e3 + 8 * 1e3, "modelled", "board")
    busy_ms[0] = 99_000.0  # it cannot have been busy for longer than the run
    assert (await energy.read(last=True)).mj == 5e4


async def test_no_meter_no_energy() -> None:
    energy = RunEnergy(NoMeter("none was asked for"), lambda: 0.0)
    energy.start()
    reading = await energy.read(last=True)
    assert (reading.mj, reading.kind) == (None, "none")
    assert "none was asked for" in reading.warning


@pytest.fixture
def metrics() -> Iterator[MetricsSink]:
    sink = MetricsSink("127.0.0.1", 0)
    yield sink
    sink.close()


def scraped(sink: MetricsSink) -> dict[tuple[str, ...], float]:
    """By name and the labels' values."""
    with urllib.request.urlopen(f"http://{sink.address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_sees_what_the_run_counts(metrics: MetricsSink) -> None:
    stats = RunStats()
    ends = [Outcome.ANSWERED] * 3 + [Outcome.LOCAL, Outcome.FAILED]
    for number, outcome in enumerate(ends):
        for sink in (stats, metrics):
            sink.add(result(number, outcome, ms=15.0))
    metrics.switched()
    for joules in (1.5, 2.5, 2.5):
        metrics.energy(EnergyReading(mj=1e3 * joules, kind="modelled", meter="board"))
    metrics.energy(EnergyReading(mj=None, kind="none", meter="board"))
    found = scraped(metrics)
    for outcome, count in stats.outcomes.items():
        assert found["splitpoint_frames_total", outcome.value] == count
    assert found["splitpoint_bytes_up_total",] == stats.bytes_up == 500
    assert found["splitpoint_frame_seconds_count",] == stats.answers == 4
    assert found["splitpoint_frame_seconds_sum",] == pytest.approx(4 * 0.015)
    assert found["splitpoint_frame_seconds_bucket", "0.01"] == 0
    assert found["splitpoint_frame_seconds_bucket", "0.02"] == 4
    for stage, seconds in (("edge", 0.0075), ("encode", 0.0015), ("cloud", 0)):
        assert found["splitpoint_stage_seconds_sum", stage] == pytest.approx(4 * seconds)
    assert found["splitpoint_switches_total",] == 1
    assert found["splitpoint_energy_joules_total", "modelled"] == pytest.approx(2.5)
    assert ("splitpoint_energy_joules_total", "measured") not in found


async def test_prometheus_follows_the_agent(
    metrics: MetricsSink, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EdgeAgent(None, bundle=small_bundle.folder, split="local") as agent:
        metrics.follow(agent)
        found = scraped(metrics)
        assert found["splitpoint_split_boundary",] == len(small_bundle.manifest.segments)
        assert np.isnan(found["splitpoint_uplink_mbps",])
        assert np.isnan(found["splitpoint_camera_drift",])
        assert np.isnan(found["splitpoint_bytes_over_calibrated",])
        monkeypatch.setattr(EdgeAgent, "uplink_mbps", 5.5)
        assert scraped(metrics)["splitpoint_uplink_mbps",] == 5.5


def test_a_port_in_use() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AgentError) as caught:
        MetricsSink("127.0.0.1", port)
    assert str(port) in str(caught.value)
    assert "in use" in str(caught.value)
