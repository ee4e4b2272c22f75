"""The dispatcher under a virtual clock: beside every fixed way, and beside who knows the future."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from itertools import product

import numpy as np
import pytest
from measured_table import all_allowed, measured_table
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.simulation.bound import most_in_time
from splitpoint.edge.simulation.course import Course, SimFrame, Tally, Truth
from splitpoint.edge.simulation.links import KINDS, generated
from splitpoint.edge.simulation.policies import Dispatching, Fixed
from splitpoint.edge.simulation.world import World
from splitpoint.partition.plan.link import Link, parse_link

SECONDS = 40.0
TABLE = measured_table()
ARMS = Arms.of(TABLE, all_allowed(TABLE), np.zeros(len(TABLE)))
LINKS = generated(SECONDS + 4)
LOCAL = int(np.flatnonzero(TABLE.sends == 0)[0])
JPEG = TABLE.codec.index("jpeg")
SLOWDOWNS, FPS, BUDGETS_S = (4, 8, 16, 32), (5, 10, 20), (0.2, 0.3, 1.0)
CELLS = list(product(SLOWDOWNS, FPS, BUDGETS_S, KINDS))


def course_of(link: Link, fps: int, budget_s: float, seconds: float = SECONDS) -> Course:
    return Course(
        link=link, interval_s=1 / fps, budget_s=budget_s, frames=int(seconds * fps), start_s=2.0
    )


def fixed(course: Course, slowdown: float, arm: int, *, finishes: bool = False) -> Tally:
    return World(Truth.of(TABLE, slowdown), course, Fixed(arm, finishes=finishes)).run()


def dispatched(course: Course, slowdown: float) -> Tally:
    first = [mbps for at, mbps in course.link.trace if at < 2]
    rate = 125e3 * max(float(np.mean(first or [course.link.uplink_mbps])), 0.1)
    policy = Dispatching(ARMS, rate, slowdown=slowdown)
    return World(Truth.of(TABLE, slowdown), course, policy).run()


def judge(cells: list[tuple[int, int, float, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points over the best fixed way, over all-local and JPEG, and short of the clairvoyant."""
    over_best, over_rivals, short = [], [], []
    for slowdown, fps, budget_s, link in cells:
        course = course_of(LINKS[link], fps, budget_s)
        alone = {arm: fixed(course, slowdown, arm).percent for arm in {*ARMS.index, LOCAL, JPEG}}
        ways = [alone[arm] for arm in ARMS.index]
        ways += [
            fixed(course, slowdown, arm, finishes=True).percent
            for arm in ARMS.index
            if TABLE.sends[arm]
        ]
        mine = dispatched(course, slowdown).percent
        over_best.append(mine - max(ways))
        over_rivals.append(mine - max(alone[LOCAL], alone[JPEG]))
        bound = most_in_time(Truth.of(TABLE, slowdown), ARMS.index, course)
        assert bound >= max(*ways, mine) - 2.5, (slowdown, fps, budget_s, link)  # a hair's luck
        short.append(bound - mine)
    return np.array(over_best), np.array(over_rivals), np.array(short)


def test_a_sample_of_all_cells() -> None:
    over_best, over_rivals, short = judge(CELLS[7::24])
    assert over_best.mean() > 0
    assert (over_best < -1).mean() <= 0.15
    assert over_best.min() > -5
    assert over_rivals.mean() > 5
    assert over_rivals.min() > -4
    assert short.mean() < 12


@pytest.mark.parametrize("slowdown", [24, 32, 40, 60])
def test_a_slow_device_on_a_dead_link_is_as_good_as_alone(slowdown: int) -> None:
    """No frame waits on it for so long that it comes late, or that a newer one would do."""
    course = Course(
        link=parse_link("0.03mbps,50ms"), interval_s=0.2, budget_s=1.0, frames=200, start_s=2.0
    )
    two = np.isin(np.arange(len(TABLE)), [LOCAL, JPEG])
    arms = Arms.of(TABLE, two, np.zeros(len(TABLE)))
    policy = Dispatching(arms, 125e3 * 0.03, slowdown=slowdown)
    mine = World(Truth.of(TABLE, slowdown), course, policy).run()
    alone = fixed(course, slowdown, LOCAL)
    assert mine.in_time >= 0.95 * alone.in_time
    assert np.median(mine.latency_s) <= 1.3 * np.median(alone.latency_s)


@pytest.mark.slow
def test_a_sixth_of_all_cells() -> None:
    """As good as it was measured over all of them, and no worse; each day another sixth.

    A part has every link, rate, budget and device: each slowdown begins with the next cell.

    What is still missing to 1 point in nine of ten cells are links that are fast for a second and
    slow for four, and links with gaps: see benchmarks/dispatch.py.
    """
    each, part = len(CELLS) // len(SLOWDOWNS), date.today().toordinal() % 6
    cells = [cell for i, cell in enumerate(CELLS) if (i + i // each) % 6 == part]
    over_best, over_rivals, _ = judge(cells)
    assert over_best.mean() > 2, part
    assert (over_best < -1).mean() <= 0.14, part
    assert over_best.min() > -20, part
    assert over_rivals.mean() > 12, part
    assert (over_rivals < -1).mean() <= 0.05, part


def test_device_and_link_work_side_by_side() -> None:
    """Neither keeps up alone with ten frames a second: together they do."""
    course = course_of(parse_link("0.9mbps,20ms"), 10, 0.3)
    alone, jpeg = fixed(course, 16, LOCAL).percent, fixed(course, 16, JPEG).percent
    assert max(alone, jpeg) < 75
    assert dispatched(course, 16).percent > 95


def test_a_link_that_is_gone_leaves_all_to_the_device() -> None:
    steps = tuple((0.1 * i, 8.0 if i < 50 else 0.0) for i in range(440))
    gone = replace(parse_link("8mbps,50ms"), trace=steps)
    tally = dispatched(course_of(gone, 5, 0.3, 35.0), 8)
    assert tally.percent > 97


def test_a_link_that_comes_back_is_used_again() -> None:
    """All-local keeps up with half of the frames only."""
    steps = tuple((0.1 * i, 0.0 if 100 <= i < 200 else 10.0) for i in range(440))
    back = replace(parse_link("10mbps,50ms"), trace=steps)
    course = course_of(back, 10, 0.3, 40.0)
    assert dispatched(course, 16).percent > 0.75 * 100 + 0.25 * 40


def test_a_burst_allowance_does_not_deceive_it() -> None:
    course = course_of(LINKS["short bursts"], 10, 0.3)
    best = max(fixed(course, 8, arm).percent for arm in ARMS.index)
    assert dispatched(course, 8).percent > best - 2


def test_a_worker_whose_queue_grows_gets_fewer_frames() -> None:
    """The device keeps up with six of ten frames. While the queue is too long, it gets those."""
    course = course_of(parse_link("8mbps,20ms"), 10, 0.3)
    busy = replace(course, wait_s=lambda now_s: 0.5)
    ways = [dispatched(each, 16).used for each in (course, busy)]
    away = [sum(n for way, n in used.items() if way not in (LOCAL, "let go")) for used in ways]
    assert away[0] > 0.4 * course.frames
    assert away[1] < 0.1 * away[0]
    assert dispatched(busy, 16).percent > fixed(busy, 16, LOCAL).percent - 4


def test_the_same_seed_gives_the_same() -> None:
    course = course_of(LINKS["bursts"], 10, 0.3)
    one, other = dispatched(course, 8), dispatched(course, 8)
    assert one.used == other.used
    assert one.latency_s == other.latency_s
    assert dispatched(replace(course, seed=2), 8).latency_s != one.latency_s


@pytest.mark.parametrize(
    "policy",
    [Fixed(JPEG), Fixed(JPEG, finishes=True), Fixed(LOCAL), Dispatching(ARMS, 125e3, slowdown=16)],
    ids=["jpeg", "jpeg, finishing", "local", "dispatching"],
)
def test_every_frame_has_one_end(
    policy: Dispatching | Fixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, ended, told = course_of(LINKS["gaps"], 20, 0.2), Counter[int](), policy.ended

    def count(frame: SimFrame) -> None:
        ended[frame.number] += 1
        told(frame)

    monkeypatch.setattr(policy, "ended", count)
    tally = World(Truth.of(TABLE, 16), course, policy).run()
    assert ended == Counter(range(course.frames))
    assert 0 < tally.in_time < course.frames
    assert len(tally.latency_s) == tally.in_time
    assert max(tally.latency_s) <= 0.2 + 1e-6


def test_the_bound_is_what_can_be_computed_by_hand() -> None:
    """No link to speak of: the device does as many as it has time for."""
    course = course_of(parse_link("0.001mbps,20ms"), 20, 0.3)
    bound = most_in_time(Truth.of(TABLE, 16), ARMS.index, course)
    device_s = float(TABLE.edge_ms[LOCAL]) * 16e-3
    assert 100 * 0.05 / device_s - 1 <= bound <= 100 * (0.05 / device_s + 0.3 / SECONDS) + 4
