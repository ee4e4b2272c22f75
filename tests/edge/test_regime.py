"""One line for each change of the mix."""

from __future__ import annotations

from splitpoint.edge.dispatch.regime import FEWEST, HOLD_S, Regime


def lines_of(ways: list[str], every_s: float = 0.1, regime: Regime | None = None) -> list[str]:
    regime, lines = regime or Regime(), []
    for number, way in enumerate(ways):
        regime.took(every_s * number, way)
        line = regime.change(every_s * number, 0.8123)
        lines += [line] if line else []
    return lines


def test_the_first_mix_is_said_once() -> None:
    lines = lines_of(["boundary 2 as fkt@4", "boundary 2 as fkt@4", "here"] * 40)
    assert len(lines) == 1
    assert lines[0].startswith("uplink 0.81 Mbit/s: ")
    assert "% boundary 2 as fkt@4, " in lines[0]
    assert lines[0].endswith("% here")


def test_another_mix_is_another_line() -> None:
    lines = lines_of(["here"] * 60 + ["the input as jpeg"] * 60)
    assert len(lines) in (2, 3)  # one may come while the window holds both
    assert lines[-1].endswith("100 % the input as jpeg")


def test_few_frames_and_small_changes_are_not_worth_a_line() -> None:
    assert lines_of(["here"] * (FEWEST - 1)) == []
    assert len(lines_of((["here"] * 8 + ["let go"] * 2) * 30)) == 1


def test_a_mix_that_flutters_is_held() -> None:
    ways = (["here"] * 5 + ["the input as jpeg"] * 5) * 30
    assert len(lines_of(ways)) <= 1 + 30 * 10 * 0.1 / HOLD_S
