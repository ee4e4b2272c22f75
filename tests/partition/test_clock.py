"""Clock, heat and throttling, from trees and from `vcgencmd`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from splitpoint.partition.profile.throttling import ClockState, clock_notes, read_clock


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def cpu(number: int, khz: object, most_khz: int) -> dict[str, object]:
    folder = f"devices/system/cpu/cpu{number}/cpufreq"
    return {f"{folder}/scaling_cur_freq": khz, f"{folder}/cpuinfo_max_freq": most_khz}


def zone(number: int, kind: str, millidegrees: object) -> dict[str, object]:
    folder = f"class/thermal/thermal_zone{number}"
    return {f"{folder}/type": kind, f"{folder}/temp": millidegrees}


def silent(command: Sequence[str]) -> str:
    raise FileNotFoundError(2, "No such file or directory", command[0])


def test_all_of_it(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        cpu(0, 600000, 1500000)
        | cpu(1, 2400000, 2400000)
        | cpu(10, 1500000, 2400000)
        | {"devices/system/cpu/cpufreq/boost": 1, "devices/system/cpu/cpuidle/x": 1}
        | zone(0, "cpu-thermal", 61200)
        | zone(1, "gpu-thermal", 58000),
    )
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command)
        return "throttled=0x0\n"

    assert read_clock(root, run=run) == ClockState(mhz=2400, hottest_c=61.2, throttled="none")
    assert asked == [("vcgencmd", "get_throttled")]


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    state = read_clock(tmp_path, run=silent)
    assert state == ClockState(mhz=None, hottest_c=None, throttled="")
    assert clock_notes(state, state) == ()


def test_sensors_that_are_off_and_garbage_do_not_count(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        cpu(0, "<unknown>", 0)
        | zone(0, "CPU-therm", 41500)
        | zone(1, "PMIC-Die", 100000)
        | zone(2, "CV0-therm", -256000)
        | zone(3, "wifi", "")
        | zone(4, "x", 255000)
        | zone(5, "y", "nan"),
    )
    (root / "sys/class/thermal/thermal_zone6/temp").mkdir(parents=True)
    assert read_clock(root, run=lambda command: "VCHI initialization failed") == ClockState(
        hottest_c=41.5
    )


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0x0", "none"),
        ("0x1", "under-voltage"),
        ("0x2", "frequency capped"),
        ("0x4", "throttled"),
        ("0x8", "soft temperature limit"),
        ("0x50005", "under-voltage, throttled"),
        ("0x50000", "under-voltage since boot, throttled since boot"),
        ("0xE0008", "soft temperature limit, frequency capped since boot, throttled since boot"),
    ],
)
def test_throttled_bits(tmp_path: Path, bits: str, text: str) -> None:
    assert read_clock(tmp_path, run=lambda command: f"throttled={bits}\n").throttled == text


@pytest.mark.parametrize(
    ("before", "after", "notes"),
    [
        (
            ClockState(mhz=2400, hottest_c=60),
            ClockState(mhz=1500, hottest_c=82.4),
            ("the clock fell from 2400 to 1500 MHz while measuring", "82 °C at the end"),
        ),
        (ClockState(mhz=2400), ClockState(mhz=2300), ()),
        (ClockState(mhz=1500), ClockState(mhz=2400), ()),
        (ClockState(mhz=1500), ClockState(), ()),
        (ClockState(hottest_c=85), ClockState(hottest_c=79.9), ()),
        # On now, on at first, begun and over in between; but not what was over before.
        (ClockState(throttled="none"), ClockState(throttled="throttled"), ("throttled",)),
        (ClockState(throttled="throttled"), ClockState(throttled="none"), ("throttled",)),
        (
            ClockState(throttled="throttled since boot"),
            ClockState(throttled="under-voltage since boot, throttled since boot"),
            ("under-voltage",),
        ),
        (
            ClockState(throttled="under-voltage since boot"),
            ClockState(throttled="under-voltage since boot"),
            (),
        ),
        (ClockState(), ClockState(throttled="under-voltage since boot"), ()),
    ],
)
def test_notes(before: ClockState, after: ClockState, notes: tuple[str, ...]) -> None:
    said = clock_notes(before, after)
    assert tuple(note.replace(" (vcgencmd)", "") for note in said) == notes
    assert all("\n" not in note for note in said)
