"""Who took how much of a device lately, and what that lets others do."""

from __future__ import annotations

from typing import cast

import pytest
from splitpoint.cloud.schedule.job import Job, Timed
from splitpoint.cloud.schedule.taken import MOST_AHEAD_S, MUCH_S, TIMES, Taken


def jobs(*samples: tuple[str, int]) -> list[Job]:
    return [Job(model=cast(Timed, None), boundary=0, samples=count, deadline_s=0.0, client=client)
            for client, count in samples]  # fmt: skip


def seconds(taken: Taken) -> dict[str, float]:
    return dict(taken.standing("", 0.0).seconds)


def test_a_step_is_paid_for_by_sample_and_forgotten_in_time() -> None:
    taken = Taken()
    taken.ran(10.0, 0.4, jobs(("a", 3), ("b", 1)))
    assert seconds(taken) == pytest.approx({"a": 0.3, "b": 0.1})
    taken.came(11.0, "c")
    assert seconds(taken) == pytest.approx({"a": 0.1104, "b": 0.0368, "c": 0.003}, rel=0.01)
    taken.came(12.0, "d")
    assert set(seconds(taken)) == {"a", "b", "c", "d"}, "c came a second ago"
    taken.came(20.0, "e")
    assert set(seconds(taken)) == {"e"}


def test_what_is_clearly_more() -> None:
    taken = Taken()
    taken.ran(0.0, 1.0, jobs(("a", 60), ("b", 29), ("c", 11)))
    assert taken.standing("b", 0.0).goes_before({"a"})
    assert not taken.standing("b", 0.0).goes_before({"a", "b"})
    assert not taken.standing("b", 0.08).goes_before({"a"}), "with what it asks for"
    assert not taken.standing("b", 0.0).goes_before({"c"})
    assert taken.standing("c", 0.0).goes_before({"a", "b"})
    assert taken.standing("c", 0.1).goes_before({"a"})
    assert not taken.standing("c", 0.1).goes_before({"b"})
    assert taken.standing("a", 0.0).stays_behind({"b", "c"})
    assert taken.standing("a", 0.0).stays_behind({"nobody knows it"})
    assert not taken.standing("b", 0.0).stays_behind({"c", "a"})
    taken.came(1.0, "a")  # until then it was not asked how much the least is
    has_much = {client: taken.standing(client, 0.0).has_much for client in "abc"}
    assert has_much == {"a": True, "b": True, "c": False}
    assert taken.most == "a"


def test_a_few_frames_are_not_much_however_little_others_took() -> None:
    taken = Taken()
    taken.ran(0.0, 0.9 * MUCH_S, jobs(("a", 1)))
    taken.came(0.2, "b")
    a, b = taken.standing("a", 0.0), taken.standing("b", 0.0)
    assert not any((a.has_much, a.stays_behind({"b"}), b.may_go_first, b.goes_before({"a"})))


def test_one_alone_has_not_much_and_with_another_it_has() -> None:
    taken = Taken()
    taken.came(0.0, "a")
    taken.ran(0.05, 1.0, jobs(("a", 1)))
    assert not taken.standing("a", 0.0).has_much
    taken.came(0.06, "b")
    assert taken.standing("a", 0.0).has_much
    assert not taken.standing("b", 0.0).has_much
    taken.ran(0.07, 1.0 / TIMES, jobs(("b", 1)))
    taken.came(0.2, "b")
    assert not taken.standing("a", 0.0).has_much


def test_so_much_may_go_ahead_and_then_more_after_a_while() -> None:
    taken = Taken()
    taken.ran(0.0, 1.0, jobs(("a", 1)))
    taken.went_ahead(0.9 * MOST_AHEAD_S)
    assert taken.standing("b", 0.0).goes_before({"a"})
    taken.went_ahead(0.2 * MOST_AHEAD_S)
    assert not taken.standing("b", 0.0).may_go_first
    assert not taken.standing("b", 0.0).goes_before({"a"})
    taken.ran(0.2, 0.2, jobs(("a", 1)))
    assert taken.standing("b", 0.0).goes_before({"a"})
