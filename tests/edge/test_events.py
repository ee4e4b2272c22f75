"""Results in files: by day and size, within a bound, and whole whatever ended the agent."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from splitpoint.edge import AgentError, Outcome, Result
from splitpoint.edge.sinks.events import EventFiles

MB = 0.01  # of all files here
FRIDAY, SATURDAY = date(2026, 11, 27), date(2026, 11, 28)


def result(number: int) -> Result:
    return Result(id=number, outcome=Outcome.LOCAL, boundary=0, codec="raw")


def described(one: Result) -> dict[str, Any]:
    return {"id": one.id, "words": "x" * 80}


@contextmanager
def events(folder: Path, today: Callable[[], date] = lambda: FRIDAY) -> Iterator[EventFiles]:
    sink = EventFiles(folder, described, MB, today=today)
    try:
        yield sink
    finally:
        sink.close()


def write(folder: Path, numbers: range, day: date = FRIDAY) -> None:
    with events(folder, lambda: day) as sink:
        for number in numbers:
            sink.add(result(number))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ids(folder: Path) -> list[int]:
    return [
        json.loads(line)["id"]
        for name in files(folder)
        for line in (folder / name).read_text().splitlines()
    ]


def test_lines_are_there_at_once_and_go_on_after_a_restart(tmp_path: Path) -> None:
    with events(tmp_path / "new" / "events") as sink:
        sink.add(result(0))
        assert ids(tmp_path / "new" / "events") == [0]
    write(tmp_path / "new" / "events", range(1, 4))
    assert ids(tmp_path / "new" / "events") == [0, 1, 2, 3]
    assert files(tmp_path / "new" / "events") == ["2026-11-27.000.jsonl"]


def test_a_day_has_files_of_its_own(tmp_path: Path) -> None:
    day = FRIDAY
    with events(tmp_path, lambda: day) as sink:
        sink.add(result(0))
        day = SATURDAY
        sink.add(result(1))
        day = FRIDAY  # the clock was set: no older file is begun
        sink.add(result(2))
    write(tmp_path, range(3, 4))
    assert files(tmp_path) == ["2026-11-27.000.jsonl", "2026-11-28.000.jsonl"]
    assert ids(tmp_path) == [0, 1, 2, 3]


def test_they_roll_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("stays")
    (tmp_path / "2026-13-01.000.jsonl").write_text("stays, too")
    for begin in range(0, 400, 50):
        write(tmp_path, range(begin, begin + 50), FRIDAY if begin < 200 else SATURDAY)
        sizes = [path.stat().st_size for path in tmp_path.glob("2026-11-*.jsonl")]
        assert sum(sizes) <= 1e6 * MB
        assert max(sizes) <= 1e5 * MB
    assert (tmp_path / "mine.txt").read_text() == "stays"
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "2026-13-01.000.jsonl").unlink()
    found = ids(tmp_path)
    assert found == list(range(found[0], 400))
    assert len(found) > 80  # of the 100 or so that there is room for


def test_a_bound_that_has_shrunk_holds_for_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "2026-11-26.000.jsonl").write_text("{}\n" * 10_000)
    (tmp_path / "2026-11-26.001.jsonl").write_text("{}\n")
    write(tmp_path, range(1))
    assert files(tmp_path) == ["2026-11-26.001.jsonl", "2026-11-27.000.jsonl"]


@pytest.mark.parametrize("torn", [b'{"id": 9, "wo', b"{", b"x" * 200_000])
def test_a_torn_line_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    write(tmp_path, range(3))
    with (tmp_path / "2026-11-27.000.jsonl").open("ab") as file:
        file.write(torn)
    write(tmp_path, range(3, 5))
    assert ids(tmp_path) == [0, 1, 2, 3, 4]


def test_a_file_of_one_torn_line_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "2026-11-27.000.jsonl").write_bytes(b'{"id": 9')
    write(tmp_path, range(1))
    assert ids(tmp_path) == [0]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    """A limit on the size of files does as a full disk: a part is written, and then nothing."""
    with events(tmp_path) as sink:
        sink.add(result(0))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                sink.add(result(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sink.add(result(2))
    assert ids(tmp_path) == [0, 2]


def test_a_file_that_somebody_deletes_is_written_anew(tmp_path: Path) -> None:
    with events(tmp_path) as sink:
        sink.add(result(0))
        (tmp_path / "2026-11-27.000.jsonl").unlink()
        sink.add(result(1))
    assert ids(tmp_path) == [1]


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        events(tmp_path),
        pytest.raises(AgentError, match=r"another agent writes .*: give each a folder of its own"),
    ):
        EventFiles(tmp_path, described, MB)
    write(tmp_path, range(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match=r"cannot write events to .*/file: .*give another folder"):
        EventFiles(tmp_path / "file", described, MB)
    handles = len(os.listdir("/proc/self/fd"))
    (tmp_path / "2026-11-27.000.jsonl").mkdir()
    with pytest.raises(AgentError, match="cannot write events"):
        EventFiles(tmp_path, described, MB, today=lambda: FRIDAY)
    assert len(os.listdir("/proc/self/fd")) == handles
