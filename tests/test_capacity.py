"""The capacity model against what queueing theory knows, and its benchmark in short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from splitpoint.cloud.schedule.batch_times import BatchTimes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from capacity import Case, at_rate, capacity  # noqa: E402
from virtual_worker import TimedModel  # noqa: E402


def model(share: float, ms: float = 10.0, segments: int = 2) -> TimedModel:
    """Each further sample of a batch costs `share` of the first."""
    rows = [{n: ms / segments * (1 + share * (n - 1)) for n in (1, 2, 4, 8, 16, 32)}] * segments
    return TimedModel(name="m", source="invented", batch_times=BatchTimes(rows, 32))


CASE = Case("input", (0,), (1.0,), 200.0)


def test_without_gain_from_batches_it_is_a_queue_with_one_server() -> None:
    """M/D/1: a wait of b / (2 (1 - b)) service times at the load b."""
    share = at_rate(model(1.0), CASE, 50.0, 40_000)
    assert share.refusals == 0
    assert share.busy_s / share.seconds == pytest.approx(0.5, rel=0.03)
    assert share.batch == pytest.approx(1, abs=0.01)
    mean_ms = sum(share.waited_ms) / len(share.waited_ms)
    assert mean_ms == pytest.approx(10 + 10 * 0.5 / (2 * 0.5), rel=0.05)


@pytest.mark.slow
def test_refusals_mark_the_capacity() -> None:
    found = capacity(model(1.0), CASE, 20_000)
    assert found is not None
    assert found.per_s < 100  # nobody serves more than 1 / 10 ms
    assert found.per_s > 85
    assert 0 < found.share.refusals <= 0.01
    assert at_rate(model(1.0), CASE, 1.2 * found.per_s, 20_000).refusals > 0.1


@pytest.mark.slow
def test_batches_carry_more_and_less_budget_less() -> None:
    plain, batched = capacity(model(1.0), CASE, 8_000), capacity(model(0.2), CASE, 8_000)
    assert plain is not None
    assert batched is not None
    assert batched.per_s > 2.5 * plain.per_s
    hurried = capacity(model(0.2), Case("input", (0,), (1.0,), 30.0), 8_000)
    assert hurried is not None
    assert hurried.per_s < batched.per_s
    assert capacity(model(0.2), Case("input", (0,), (1.0,), 9.0), 8_000) is None


def test_times_are_written_and_read_again(tmp_path: Path) -> None:
    for padded in (False, True):
        rows = [{1: 1.0, 2: 1.5, 4: 2.0}, {1: 3.0, 2: 3.5, 4: 4.5}]
        times = BatchTimes(rows, 4, padded=padded)
        before = TimedModel(name="m", source="here", batch_times=times)
        before.save(tmp_path / "times.json", padded=padded)
        after = TimedModel.load(tmp_path / "times.json")
        for found, row in zip(after.batch_times.seconds, times.seconds, strict=True):
            assert found == pytest.approx(row)
        assert (after.name, after.source) == ("m", "here")
