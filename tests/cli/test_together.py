"""Several sources through one agent: each gets its rate, and none is hurt by another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
import pytest
from command import Command
from PIL import Image
from splitpoint.cli.run import together
from splitpoint.cli.run.result_lines import source_of
from splitpoint.cli.run.together import Together
from splitpoint.cli.shell.stop_signals import StopSignals
from splitpoint.edge import EdgeAgent, Given, InputFeed, Outcome, Result, SourceError
from splitpoint.edge.sources.named import NamedSource
from splitpoint.partition.bundle.bundle import Bundle

GREY = np.full((40, 60, 3), 90, np.uint8)


class Playing:
    """A source of so many frames a second, that opens after some tries and ends with an error."""

    examples: Sequence[Path] = ()

    def __init__(
        self,
        fps: float,
        *,
        live: bool = True,
        count: int = 1 << 30,
        misses: int = 0,
        error: Exception | None = None,
        rgb: np.ndarray | None = GREY,
    ) -> None:
        self._fps, self.live, self._count, self.misses = fps, live, count, misses
        self._error, self._rgb = error, rgb
        self.closed = 0

    async def open(self) -> None:
        if self.misses:
            self.misses -= 1
            raise SourceError("nobody answers")

    async def close(self) -> None:
        self.closed += 1

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        begin_s = time.monotonic()
        for number in range(self._count):
            await asyncio.sleep(max(begin_s + number / self._fps - time.monotonic(), 0))
            yield feed.of_array(self._rgb, f"#{number}")
        if self._error is not None:
            raise self._error


async def played(
    bundle: Bundle, sources: dict[str, Playing], seconds: float
) -> tuple[list[Result], Together]:
    """Results of so many seconds of all the sources."""
    named = [NamedSource(name=name, source=source) for name, source in sources.items()]
    many, found = Together(named), list[Result]()

    async def read() -> None:
        async for result in many.results(agent, stop, keeps_pictures=False, in_flight=0):
            found.append(result)

    async with EdgeAgent(None, bundle=bundle.folder, split="local") as agent:
        with StopSignals() as stop:
            try:
                await many.open()
                reading = asyncio.create_task(read())
                done, _ = await asyncio.wait((reading,), timeout=seconds)
                if not done:
                    os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(reading, 20)
            finally:
                await many.close()
    return found, many


def frames_of(results: list[Result]) -> Counter[str]:
    return Counter(source_of(result) for result in results)


async def test_each_gets_its_rate(small_bundle: Bundle) -> None:
    rates = {"fast": 20.0, "slow": 2.0, "file": 8.0, "other": 5.0}
    sources = {name: Playing(fps, live=name != "file") for name, fps in rates.items()}
    found, _ = await played(small_bundle, sources, 4.0)
    assert all(result.outcome is Outcome.LOCAL for result in found)
    for name, count in frames_of(found).items():
        assert count == pytest.approx(4 * rates[name], rel=0.1, abs=1.5), name
    assert all(source.closed == 1 for source in sources.values())


async def test_one_that_hangs_breaks_or_sends_garbage_costs_the_others_nothing(
    small_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    sources = {
        "good": Playing(10),
        "hangs": Playing(0.001),
        "garbage": Playing(10, rgb=None),
        "grows": Playing(10, rgb=np.zeros((400, 600, 3), np.uint8)),
        "breaks": Playing(10, count=3, error=SourceError("the disk is gone")),
    }
    found, many = await played(small_bundle, sources, 2.5)
    counts = frames_of(found)
    assert counts["good"] == pytest.approx(25, abs=3)
    assert counts["grows"] == pytest.approx(25, abs=3)
    assert counts["breaks"] == 3
    for result in found:
        lost = source_of(result) == "garbage"
        assert result.outcome is (Outcome.FAILED if lost else Outcome.LOCAL)
    assert many.failed == ["the disk is gone"]
    assert "the disk is gone; the other sources go on" in caplog.text


async def test_a_camera_that_is_not_there_joins_later(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(together, "FIRST_PAUSE_S", 0.1)
    sources = {"here": Playing(10), "late": Playing(10, misses=3)}
    found, _ = await played(small_bundle, sources, 2.5)
    assert frames_of(found)["here"] == pytest.approx(25, abs=3)
    assert 10 <= frames_of(found)["late"] <= 22
    assert "late: nobody answers; it is tried again" in caplog.text
    assert "late is there" in caplog.text


async def test_none_that_is_there(small_bundle: Bundle) -> None:
    for sources in (
        {"a": Playing(1, misses=1), "b": Playing(1, misses=1)},
        {"a": Playing(1), "b": Playing(1, live=False, misses=1)},  # a file does not come later
    ):
        with pytest.raises(SourceError, match="nobody answers"):
            await played(small_bundle, sources, 1)
        assert all(source.closed == 1 for source in sources.values())


async def test_an_error_of_the_only_source_or_of_all_ends_the_run(small_bundle: Bundle) -> None:
    ends = SourceError("gone")
    with pytest.raises(SourceError, match="gone"):
        await played(small_bundle, {"": Playing(50, count=2, error=ends)}, 10)
    both = {name: Playing(50, count=2, error=ends) for name in "ab"}
    with pytest.raises(SourceError, match="gone"):
        await played(small_bundle, both, 10)


def test_through_the_command(command: Command, small_bundle: Bundle, tmp_path: Path) -> None:
    for name, count in (("yard", 3), ("door", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            photo = Image.new("RGB", (64, 48), (100, 90, 0))
            if number == 2:  # of the yard's pictures, the second shows what the first one does
                photo.paste((250, 250, 250), (10, 10, 30, 30))
            photo.save(tmp_path / name / f"{number}.png")
    (tmp_path / "agent.toml").write_text(
        f'bundle = "{small_bundle.folder}"\nsplit = "local"\n'
        f'[source]\nyard = "{tmp_path / "yard"}"\ndoor = "{tmp_path / "door"}"\n'
        '[motion]\nyard = 0.5\n[fps]\ndoor = 20\n[region]\ndoor = "0,0,32,32"\n'
    )
    done = command("run", "--config", str(tmp_path / "agent.toml"), "--json")
    assert done.returncode == 0, done.stderr
    *lines, last = (json.loads(line) for line in done.stdout.splitlines())
    ended = Counter((line["source_name"], line["outcome"]) for line in lines)
    assert ended == {("yard", "local"): 2, ("yard", "skipped"): 1, ("door", "local"): 2}
    counted = last["summary"]["sources"]
    assert counted["yard"]["outcomes"] == {"local": 2, "skipped": 1}
    assert counted["door"]["frames"] == 2
    assert last["summary"]["outcomes"]["skipped"] == 1
    plain = command("run", "--config", str(tmp_path / "agent.toml"))
    assert "skipped" in plain.stdout
    assert "yard  0.png" in plain.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "a=x", "--source", "a=y"], "two sources are called a"),
        (["--source", "a={p}", "--region", "b=0,0,4,4"], "--region names no source 'b'"),
        (["--source", "a={p}", "--mask", "nowhere.png"], "cannot read nowhere.png"),
        (["--source", "{p}", "--fps", "0"], "is no number of frames a second"),
        (["--source", "{p}", "--motion", "x"], "is no share of a picture"),
        (["--source", "{p}", "--region", "1,2"], "is no region"),
    ],
)
def test_bad_words_are_one_line(
    command: Command, small_bundle: Bundle, tmp_path: Path, options: list[str], said: str
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "p.png")
    texts = [option.replace("{p}", str(tmp_path)) for option in options]
    done = command("run", "--bundle", str(small_bundle.folder), "--split", "local", *texts)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
