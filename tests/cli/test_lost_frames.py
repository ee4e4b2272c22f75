"""Frames without an answer: no kind of loss fills the terminal, and all of them are counted."""

from __future__ import annotations

import re

from splitpoint.cli.run.lost_frames import AGAIN_S, MOST_KINDS, LostFrames
from splitpoint.edge import Outcome, Result
from splitpoint.proto.status import FrameExpiredError, FrameFailedError

LATE = FrameExpiredError("let go: it would not have been in time")


class Said:
    """What is said of losses at the times that a test gives."""

    def __init__(self) -> None:
        self.now_s, self.lines, self._count = 0.0, list[str](), 0
        self.frames = LostFrames(self.lines.append, clock=lambda: self.now_s)

    def lose(self, error: Exception, outcome: Outcome = Outcome.EXPIRED) -> None:
        self._count += 1
        self.frames.add(
            Result(
                id=self._count,
                outcome=outcome,
                boundary=0,
                codec="jpeg",
                error=error,  # type: ignore[arg-type]
                metadata="camera",
            )
        )


def counted(lines: list[str]) -> int:
    """Frames that the lines speak of."""
    more = sum(int(n) for line in lines for n in re.findall(r"(\d+) more", line))
    return more + sum(line.partition(" ")[2].startswith("camera") for line in lines)


def test_a_minute_of_frames_that_are_let_go_is_a_few_lines() -> None:
    said = Said()
    for number in range(600):
        said.now_s = 0.1 * number
        said.lose(LATE)
    said.frames.close()
    assert said.lines[0] == f"1 camera: expired: {LATE}"
    assert said.lines[1] == f"101 camera: expired: {LATE} (99 more before it)"
    assert said.lines[-1] == f"99 more frames expired: {LATE}"
    assert len(said.lines) == 60 / AGAIN_S + 1
    assert counted(said.lines) == 600


def test_another_kind_is_said_at_once_and_figures_make_no_kind() -> None:
    said = Said()
    for number in range(20):
        said.lose(FrameExpiredError(f"no answer within {300 - number} ms"))
        said.lose(LATE)
    said.lose(FrameFailedError("the worker answered FAILED"), Outcome.FAILED)
    assert len(said.lines) == 3
    said.frames.close()
    assert counted(said.lines) == 41
    assert len(said.lines) == 5


def test_each_file_that_cannot_be_read_is_named() -> None:
    said = Said()
    for number in range(3 * MOST_KINDS):
        said.lose(FrameFailedError(f"IMG_{number}.jpg is no picture"), Outcome.FAILED)
        said.lose(LATE)
    assert len([line for line in said.lines if "IMG_" in line]) == 3 * MOST_KINDS
    said.frames.close()
    assert counted(said.lines) == 6 * MOST_KINDS


def test_nothing_is_added_where_all_was_said() -> None:
    said = Said()
    said.lose(LATE)
    said.frames.close()
    assert len(said.lines) == 1
