"""One line for each change of the mix."""

from __future__ import annotations

from splitpoint.edge.dispatch.regime import FEWEST, HOLD_S, MOST, Regime


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
    """Each block fills the window: without the hold it would have a line of its own."""
    blocks, every_s = 24, 0.02
    assert MOST * every_s < HOLD_S / 2
    ways = (["here"] * MOST + ["the input as jpeg"] * MOST) * (blocks // 2)
    lines = lines_of(ways, every_s)
    assert 3 <= len(lines) <= 1 + every_s * len(ways) / HOLD_S < blocks / 2


def test_that_nothing_comes_through_is_said_though_the_mix_is_the_same() -> None:
    regime, lines = Regime(), []
    for number in range(600):
        regime.took(0.1 * number, "here")
        line = regime.change(0.1 * number, 0.0 if 200 <= number < 400 else 2.9)
        lines += [line] if line else []
    assert lines == [
        "uplink 2.9 Mbit/s: 100 % here",
        "uplink dead (nothing comes through): 100 % here",
        "uplink 2.9 Mbit/s: 100 % here",
    ]
