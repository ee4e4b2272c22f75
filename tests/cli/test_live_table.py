"""The live table: what it shows, how it keeps up, and what it never claims."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import MAIN
from rich.console import Console
from splitpoint.cli.run.live_table import LiveTable
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.edge.figures.recent import WINDOW
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.meter import EnergyReading, NoMeter


@pytest.fixture
async def agent(small_bundle: Bundle) -> AsyncIterator[EdgeAgent]:
    async with EdgeAgent(None, bundle=small_bundle.folder, split="local") as entered:
        yield entered


def result(number: int, ms: float, outcome: Outcome = Outcome.LOCAL) -> Result:
    logits = np.array([[0, 0, 9, 0, 0]], np.float32)
    return Result(
        id=number,
        outcome=outcome,
        boundary=4,
        codec="q8",
        outputs={"output": logits} if outcome is Outcome.LOCAL else {},
        labels=("ant", "bee", "cat", "dog", "eel"),
        total_ms=ms,
        why="" if outcome is Outcome.LOCAL else "too late",
        metadata=f"/in/[red]{number}.png",
    )


def words(table: LiveTable) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table.table())
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


async def test_rows(agent: EdgeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    energy = RunEnergy(NoMeter("none"), lambda: 0.0)
    table = LiveTable(agent, energy, clock=lambda: now[0])
    shown = words(table)
    assert "frames 0, 0.0 a second" in shown
    assert "split boundary 4 after head codec none" in shown
    for absent in ("energy", "uplink", "latency", "last"):
        assert absent not in shown
    now[0] += 2
    for number in range(10):
        table.add(result(number, 10.0 * (number + 1)))
    table.add(result(10, 5.0, Outcome.EXPIRED))
    monkeypatch.setattr(EdgeAgent, "uplink_mbps", 0.8)
    energy.reading = EnergyReading(mj=2500, kind="modelled", meter="pi5")
    table.switched("uplink 0.8 Mbit/s (p20): boundary 2 -> 4")
    shown = words(table)
    assert "frames 11, 5.5 a second" in shown
    assert "outcomes 10 local, 1 expired" in shown
    assert "codec q8" in shown
    assert "uplink 0.8 Mbit/s" in shown
    monkeypatch.setattr(EdgeAgent, "uplink_mbps", 0.0)
    assert "uplink dead (nothing comes through)" in words(table)
    assert "p50 55.0 ms, p95 95.5 ms, p99 99.1 ms (last 10)" in shown
    assert "energy 2.5 J, idle time included (modelled, pi5)" in shown
    assert "switched uplink 0.8 Mbit/s (p20): boundary 2 -> 4" in shown
    assert "9 [red]9.png cat 1.000" in shown
    assert "10 [red]10.png expired: too late" in shown


async def test_it_keeps_up_in_bounded_memory(agent: EdgeAgent) -> None:
    now = [0.0]
    table = LiveTable(agent, RunEnergy(NoMeter("none"), lambda: 0.0), clock=lambda: now[0])
    for number in range(3 * WINDOW):
        now[0] += 0.001
        table.add(result(number, 1.0 if number < 2 * WINDOW else 2.0))
    assert "p50 2.0 ms" in words(table)
    assert "1000.0 a second" in words(table)
    now[0] += 100  # nothing comes any more
    assert f"frames {3 * WINDOW}, 0.0 a second" in words(table)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_terminal_gets_the_table_and_then_the_summary(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MAIN, "run", "--bundle", str(small_bundle.folder), "--split", "local", "--source",
         str(tmp_path / "a.png"), "--repeat", "500"],
        stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                said += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0, said
    table, _, summary = said.decode().rpartition("\x1b[?25h")  # the cursor is shown again
    assert "a second" in table
    assert "500" in summary
    assert "p99" in summary
    assert "J, idle time included (" in summary


async def test_the_name_of_a_model_is_no_markup(
    agent: EdgeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may send any."""
    manifest = replace(agent.manifest, name="[/x]\x1b[2J")
    monkeypatch.setattr(EdgeAgent, "manifest", property(lambda agent: manifest))
    shown = words(LiveTable(agent, RunEnergy(NoMeter("none"), lambda: 0.0)))
    assert "[/x]\\x1b[2J" in shown
