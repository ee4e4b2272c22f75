"""Power that is read again and again: how it is integrated, and what that costs."""

from __future__ import annotations

import threading

import pytest
from energy_boards import FakeTime
from splitpoint.partition.energy.find import (
    measured,
)
from splitpoint.partition.energy.sampler import SampledMeter

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_power_is_integrated_by_trapezoids() -> None:
    time = FakeTime(steps=2)
    watts = {0.0: 2.0, 0.1: 4.0, 0.2: 8.0, 0.25: 6.0}
    meter = SampledMeter(
        "x", "", lambda: watts[round(time.now, 3)], clock=time.clock, wait=time.wait
    )
    meter.start()
    time.rest()
    time.now = 0.25
    reading = meter.stop()
    assert reading.mj == pytest.approx(1e3 * (0.1 * 3 + 0.1 * 6 + 0.05 * 7))
    assert (reading.kind, reading.warning) == ("measured", "")


def test_sampling_takes_no_more_than_a_hundredth_of_the_time() -> None:
    costs = [0.0, 0.0005, 0.004, 0.02]
    time = FakeTime(steps=4)
    left = iter([*costs, 0.0, 0.0])

    def read_w() -> float:
        time.now += next(left)
        return 1.0

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    time.rest()
    meter.stop()
    assert time.pauses == pytest.approx([0.1, 0.1, 0.4, 2.0])


def test_the_sampling_itself_is_not_in_the_energy() -> None:
    time = FakeTime()

    def read_w() -> float:
        time.now += 0.5
        return 10.0

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    time.now += 1.0
    reading = meter.stop()
    assert reading.mj == pytest.approx(10_000)
    assert reading.warning == "rough energy: no sample within the 1000 ms"


def test_a_sample_that_is_still_being_read_at_the_stop_does_not_count() -> None:
    time = FakeTime(steps=1)
    reading, stopping = threading.Event(), threading.Event()

    def clock() -> float:
        if reading.is_set() and threading.current_thread() is threading.main_thread():
            stopping.set()
        return time.now

    def read_w() -> float:
        if threading.current_thread() is threading.main_thread():
            return 10.0
        reading.set()
        assert stopping.wait(30)
        time.now += 5
        return 90.0

    meter = SampledMeter("x", "", read_w, clock=clock, wait=time.wait)
    meter.start()
    assert reading.wait(30)
    assert meter.stop().mj == pytest.approx(0.1 * 10_000)


def test_a_meter_can_be_used_again_and_begins_anew() -> None:
    time = FakeTime()
    meter = SampledMeter("x", "", lambda: 3.0, clock=time.clock, wait=time.wait)
    for seconds in (1.0, 2.0):
        meter.start()
        time.now += seconds
        assert meter.stop().mj == pytest.approx(3e3 * seconds)
    assert meter.stop().warning == "no energy: the meter was not started"
    meter.start()
    meter.start()  # the first one's thread must not go on
    meter.stop()


@pytest.mark.parametrize("watts", [-1.0, float("nan"), float("inf")])
def test_impossible_watts(watts: float) -> None:
    values = iter([1.0, watts])
    meter = SampledMeter("x", "", lambda: next(values), wait=FakeTime().wait)
    meter.start()
    reading = meter.stop()
    assert (reading.mj, reading.kind) == (None, "none")
    assert f"{watts} W" in reading.warning


def test_a_sensor_that_fails_between_start_and_stop_but_not_at_them() -> None:
    time = FakeTime(steps=1)
    answers: list[float | Exception] = [1.0, OSError(5, "Input/output error", "/sys/x"), 1.0]

    def read_w() -> float:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    meter = SampledMeter("x", "", read_w, clock=time.clock, wait=time.wait)
    meter.start()
    for thread in threading.enumerate():
        if thread.name == "splitpoint-energy":
            thread.join(30)
    assert meter.stop().warning == "no energy: /sys/x: Input/output error"


def test_the_real_thread_samples_and_ends() -> None:
    count = 0
    enough = threading.Event()

    def read_w() -> float:
        nonlocal count
        count += 1
        if count == 3:
            enough.set()
        return 5.0

    meter = SampledMeter("x", "", read_w)
    with measured(meter) as result:
        assert result.reading.kind == "none"
        assert enough.wait(30)
    assert result.reading.kind == "measured"
    assert result.reading.mj is not None
    assert result.reading.mj >= 5.0 * 199


def test_measured_stops_when_its_block_raises() -> None:
    meter = SampledMeter("x", "", lambda: 5.0)
    with pytest.raises(KeyError), measured(meter) as result:
        raise KeyError("x")
    assert result.reading.kind == "measured"
