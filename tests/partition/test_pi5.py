"""The power management of a Raspberry Pi 5, on recorded output of its command."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from energy_boards import PI5, FakeTime, no_command, refusing
from splitpoint.partition.energy.find import (
    EnergyError,
)
from splitpoint.partition.energy.pmic import board_watts, open_pmic, rail_watts

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_pi5_rails() -> None:
    rails = rail_watts(PI5)
    assert len(rails) == 12
    assert rails["VDD_CORE"] == pytest.approx(1.8)
    assert rails["3V7_WL_SW"] == pytest.approx(0.37)
    assert sum(rails.values()) == pytest.approx(3.571)
    assert board_watts(3.571) == pytest.approx(4.6770521)


def test_pi5_energy() -> None:
    time = FakeTime(steps=2)
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command)
        time.now += 0.01
        return PI5

    meter = open_pmic(run=run, clock=time.clock, wait=time.wait)
    assert "12 rails" in meter.describe()
    meter.start()
    time.rest()
    assert time.pauses == pytest.approx([1.0, 1.0])  # 10 ms each: no faster than once a second
    time.now = 0.02 + 3  # two readings of 10 ms, to find it and to start
    assert meter.stop().mj == pytest.approx(3 * 4677.0521)
    assert set(asked) == {("vcgencmd", "pmic_read_adc")}


def test_pi5_that_loses_a_rail_or_talks_nonsense() -> None:
    answers = iter([PI5, PI5, PI5.replace("HDMI_V", "HDMI_X")])
    meter = open_pmic(run=lambda command: next(answers), wait=FakeTime().wait)
    meter.start()
    assert "no longer gives HDMI" in meter.stop().warning
    answers = iter([PI5, PI5, "what?"])
    meter = open_pmic(run=lambda command: next(answers), wait=FakeTime().wait)
    meter.start()
    assert "gives no VDD_CORE but 'what?'" in meter.stop().warning


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (no_command, "no command vcgencmd"),
        (lambda command: 'error=1 error_msg="Command not registered"', "not a Raspberry Pi 5"),
        (refusing(OSError('status 255 (error_msg="Command not registered")')), "not a Raspberry"),
        (lambda command: PI5.replace("2.00000000A", "2.0.0A"), "not a Raspberry Pi 5"),
        (refusing(OSError("can't open /dev/vcio")), "usermod -aG video"),
    ],
)
def test_pi5_unusable(run: Callable[[Sequence[str]], str], what: str) -> None:
    with pytest.raises(EnergyError) as caught:
        open_pmic(run=run)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
