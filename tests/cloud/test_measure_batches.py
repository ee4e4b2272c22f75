"""What is planned with follows what was measured, and larger batches never lose their worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from splitpoint.cloud.compute import measure_batches as module
from splitpoint.cloud.compute.cpu_wait import cpu_wait_s
from splitpoint.cloud.compute.measure_batches import LONGEST_ROUND_S, SAVED, Measured
from splitpoint.partition.bundle.bundle import Bundle


class _Runner:
    """A device with a clock of its own; `ms` of a segment for so many samples."""

    sizes = ()

    def __init__(self, ms: Callable[[int], float]) -> None:
        self.ms, self.asked = ms, []  # type: ignore[var-annotated]


@pytest.fixture
def measure(
    monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle
) -> Callable[[Callable[[int], float], int], tuple[Measured, list[int]]]:
    monkeypatch.setattr(module, "cpu_wait_s", lambda: 0.0)  # whatever else this machine does

    def run(ms: Callable[[int], float], max_batch: int) -> tuple[Measured, list[int]]:
        runner: Any = _Runner(ms)

        def once(runner: Any, form: object, values: object, size: int) -> list[float]:
            runner.asked.append(size)
            return [runner.ms(size)] * len(small_bundle.manifest.segments)

        monkeypatch.setattr(module, "segments_ms", once)
        return module.measure_batches(small_bundle, runner, max_batch), runner.asked

    return run


def test_a_size_costs_what_was_measured_where_batches_pay(measure: Any) -> None:
    measured, _ = measure(lambda size: 1.0 + 0.25 * size, 16)
    segments = len(measured.times)
    for size in (1, 2, 4, 8, 16):
        assert measured.times.seconds[0][size] == pytest.approx((1.0 + 0.25 * size) / 1e3)
        assert measured.round_s[size] == pytest.approx(segments * (1.0 + 0.25 * size) / 1e3)
    assert measured.times.max_batch == 16


def test_where_batches_neither_gain_nor_lose_they_save_what_a_step_costs(measure: Any) -> None:
    measured, _ = measure(lambda size: 1.0 * size, 32)
    row = measured.times.seconds[0]
    for size in (2, 4, 8, 16, 32):
        alone_s, half = row[1], size // 2
        assert row[size] < 2 * row[half]
        assert row[size] >= (1 - SAVED) ** 5 * size * alone_s
    assert measured.round_s[32] == pytest.approx(len(measured.times) * 32 / 1e3)


def test_batches_that_make_samples_dearer_are_not_formed(measure: Any) -> None:
    measured, _ = measure(lambda size: size * (1.0 if size <= 8 else 1.3), 32)
    assert measured.times.max_batch == 8


def test_a_slow_model_is_not_measured_for_long(measure: Any) -> None:
    measured, asked = measure(lambda size: 40.0 * size, 64)
    segments = len(measured.times)
    before_last = max(asked) / 2
    assert segments * 40.0 * before_last <= 1e3 * LONGEST_ROUND_S
    assert measured.times.max_batch == 64
    assert measured.times.seconds[0][64] <= 64 * measured.times.seconds[0][1]


def test_a_processor_that_slows_down_does_not_make_samples_dearer(measure: Any) -> None:
    calls = 0

    def ms(size: int) -> float:
        nonlocal calls
        calls += 1
        return size * (3.0 if calls > 12 else 1.0)  # in the third round

    measured, _ = measure(ms, 4)
    each = [seconds / size for size, seconds in measured.round_s.items()]
    assert max(each) == pytest.approx(min(each))


@pytest.mark.parametrize(("max_batch", "room"), [(16, 4), (12, 8)])
def test_no_memory_for_a_size_is_the_limit(measure: Any, max_batch: int, room: int) -> None:
    def ms(size: int) -> float:
        if size > room:
            raise MemoryError
        return 1.0 + size

    measured, _ = measure(ms, max_batch)
    assert measured.times.max_batch == room


def test_the_largest_batch_is_measured_whatever_its_size(measure: Any) -> None:
    """On a GPU it is captured then, and not when it first comes."""
    measured, asked = measure(lambda size: 1.0 + size, 12)
    assert sorted(set(asked)) == [1, 2, 4, 8, 12]
    assert measured.times.max_batch == 12
    assert measured.times.seconds[0][12] == pytest.approx(13e-3)


def test_no_memory_for_one_is_an_error(measure: Any) -> None:
    def ms(size: int) -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        measure(ms, 16)


def test_nothing_is_concluded_from_what_others_disturbed(
    measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine any size may look dearer: batches are not given up for that."""

    def dearer(size: int) -> float:
        return size * (1.0 if size <= 8 else 1.3)

    measured, _ = measure(dearer, 32)
    assert measured.steady
    assert measured.limit == 8
    waited = iter((0.0, 1e6))
    monkeypatch.setattr(module, "cpu_wait_s", lambda: next(waited))
    measured, _ = measure(dearer, 32)
    assert not measured.steady
    assert measured.limit == 32


def test_rounds_that_differ_were_disturbed(measure: Any) -> None:
    calls = 0

    def ms(size: int) -> float:
        nonlocal calls
        calls += 1
        return size * (3.0 if calls > 12 else 1.0)  # in the third round

    assert not measure(ms, 4)[0].steady


def test_waiting_for_a_core_is_counted() -> None:
    before_s = cpu_wait_s()
    assert before_s >= 0.0
    assert cpu_wait_s() >= before_s
