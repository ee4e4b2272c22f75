"""Clients beside each other under a virtual clock: who asks for much does not keep the others
waiting, and it costs nothing where all ask for the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pytest
from simulated_device import Model, Outcome, simulate
from splitpoint.cloud.schedule import taken
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Refused
from splitpoint.cloud.schedule.schedule import Schedule
from splitpoint.cloud.schedule.taken import NEW_S

Arrivals = list[tuple[float, Job]]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Frames `per_s` times a second from `begin_s` on, of one of `names` each."""

    per_s: float
    budget_s: float
    names: Sequence[str]
    boundaries: Sequence[int] = (0,)
    begin_s: float = 0.0
    at_random: bool = False

    def arrivals(self, model: Model, until_s: float) -> Arrivals:
        chance, now_s, found = random.Random(self.names[0]), self.begin_s, Arrivals()
        while (now_s := now_s + self._pause_s(chance)) < until_s:
            found.append((now_s, Job(
                model=model, boundary=chance.choice(self.boundaries), samples=1,
                deadline_s=now_s + self.budget_s,
                client=self.names[len(found) % len(self.names)],
            )))  # fmt: skip
        return found

    def _pause_s(self, chance: random.Random) -> float:
        return chance.expovariate(self.per_s) if self.at_random else 1 / self.per_s


def together(model: Model, senders: Sequence[Sender], until_s: float = 4.0) -> Outcome:
    arrivals = [each for sender in senders for each in sender.arrivals(model, until_s)]
    outcome = simulate(sorted(arrivals, key=lambda arrival: arrival[0]))
    assert not outcome.dropped, "at nobody's expense"
    assert all(at_s <= job.deadline_s + 1e-9 for job, at_s in outcome.done_s.items())
    return outcome


def took_s(outcome: Outcome, sender: Sender) -> list[float]:
    """From their arrivals to their answers, of the sender's frames that got one."""
    return [at_s - job.queued_s for job, at_s in outcome.done_s.items()
            if job.client in sender.names]  # fmt: skip


def refused(outcome: Outcome, sender: Sender) -> int:
    return sum(job.client in sender.names for job in outcome.refused)


def without_shares(
    monkeypatch: pytest.MonkeyPatch, model: Model, senders: Sequence[Sender]
) -> Outcome:
    """As if nobody ever took much."""
    with monkeypatch.context() as patch:
        patch.setattr(taken, "MUCH_S", math.inf)
        return together(model, senders)


def equal(count: int, per_s: float, boundaries: Sequence[int]) -> list[Sender]:
    return [Sender(per_s=per_s, budget_s=0.05, names=str(n), boundaries=boundaries, at_random=True)
            for n in range(count)]  # fmt: skip


@pytest.mark.parametrize("boundaries", [range(3), range(5)])
def test_four_equal_clients_are_batched(boundaries: Sequence[int]) -> None:
    """Each of their frames alone would take the device a hundredth of a second, all forty."""
    outcome = together(Model([2.0] * 5, 0.05), equal(4, 250, boundaries))
    assert not outcome.refused


@pytest.mark.parametrize(
    ("count", "per_s"), [(1, 1000), (1, 4000), (2, 1000), (4, 250), (4, 1000), (16, 62), (50, 20)]
)
@pytest.mark.parametrize("boundaries", [range(1), range(5)])
def test_equal_clients_are_served_as_if_there_were_no_shares(
    count: int, per_s: float, boundaries: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One alone is, too, whatever it asks for."""
    model, senders = Model([2.0] * 5, 0.05), equal(count, per_s, boundaries)
    served = len(together(model, senders).done_s)
    could_be = len(without_shares(monkeypatch, model, senders).done_s)
    assert served == could_be if count == 1 else served > 0.95 * could_be


def test_unequal_clients_are_batched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = [
        Sender(per_s=per_s, budget_s=0.05, names=f"{n}", boundaries=range(5), at_random=True)
        for n, per_s in enumerate((500, 250, 100, 50, 10))
    ]
    model = Model([2.0] * 5, 0.05)
    served = len(together(model, senders).done_s)
    assert served > 0.95 * len(without_shares(monkeypatch, model, senders).done_s)


def test_a_greedy_client_leaves_room_for_the_others() -> None:
    """One asks for ten times what the device can do, another for a tenth: that one gets it."""
    model = Model([5.0, 5.0], 0.9)
    greedy = Sender(per_s=1000, budget_s=0.3, names=["greedy"])
    modest = Sender(per_s=10, budget_s=0.3, names=["modest"])
    outcome = together(model, [greedy, modest], 10.0)
    assert not refused(outcome, modest)
    served = len(took_s(outcome, greedy))
    assert served * model.batch_times.suffix_s(0, 32) / 32 > 0.8 * outcome.end_s


@pytest.mark.parametrize(("share", "per_s"), [(0.05, 4000), (0.9, 1000), (0.9, 300)])
@pytest.mark.parametrize("budget_s", [15.0, math.inf])
def test_who_asks_for_little_does_not_wait_behind_who_asks_for_much(
    share: float, per_s: float, budget_s: float
) -> None:
    """However much time it has itself, and however well its frames would fit into the others'."""
    greedy = Sender(per_s=per_s, budget_s=0.3, names=["greedy"], boundaries=range(3))
    modest = Sender(per_s=10, budget_s=budget_s, names=["modest"], boundaries=[1], begin_s=0.2)
    outcome = together(Model([2.0] * 5, share), [greedy, modest])
    waited_s = sorted(took_s(outcome, modest))
    assert len(waited_s) == 37
    theirs_s = median(took_s(outcome, greedy))
    assert theirs_s > 0.2
    assert median(waited_s) < 0.1 * theirs_s
    assert waited_s[-3] < 0.3 * theirs_s


@pytest.mark.parametrize(("share", "per_s"), [(0.05, 4000), (0.9, 300)])
def test_who_asks_for_little_is_in_time_beside_patient_frames_of_who_asks_for_much(
    share: float, per_s: float
) -> None:
    greedy = Sender(per_s=per_s, budget_s=15.0, names=["greedy"], boundaries=range(3))
    modest = Sender(per_s=10, budget_s=0.3, names=["modest"], boundaries=[1], begin_s=0.2)
    outcome = together(Model([2.0] * 5, share), [greedy, modest])
    assert not refused(outcome, modest)
    assert max(took_s(outcome, greedy)) > 1.0


@pytest.mark.parametrize("per_s", [90, 400])
def test_many_names_keep_nobody_waiting(per_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them has taken nothing so far, and their frames fit into batches of the others."""
    model = Model([2.0] * 5, 0.05)
    honest = Sender(per_s=400, budget_s=math.inf, names=["honest"])
    crowd = Sender(per_s=per_s, budget_s=math.inf, names=[f"x{n}" for n in range(1000)])
    waited_s = took_s(together(model, [honest, crowd]), honest)
    could_s = took_s(without_shares(monkeypatch, model, [honest, crowd]), honest)
    assert median(waited_s) < 1.2 * median(could_s)
    assert max(waited_s) < 1.2 * max(could_s)


def test_what_goes_ahead_takes_a_part_of_the_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of many names that would not fit into batches, and as many as the device can do."""
    model = Model([2.0] * 5, 1.0)
    honest = Sender(per_s=100, budget_s=0.3, names=["honest"])
    crowd = Sender(per_s=100, budget_s=math.inf, names=[f"x{n}" for n in range(1000)], begin_s=1.0)
    served = len(took_s(together(model, [honest, crowd]), honest))
    could_be = len(took_s(without_shares(monkeypatch, model, [honest, crowd]), honest))
    assert served > 0.75 * could_be


def job_of(client: str, model: Model, deadline_s: float = 1.0, **more: float) -> Job:
    return Job(
        model=model, samples=1, deadline_s=deadline_s, client=client,
        boundary=int(more.get("boundary", 0)),
    )  # fmt: skip


def busy_with(client: str, model: Model, steps: int = 20) -> tuple[Schedule[Job], float]:
    """A schedule whose device has run so many batches of that client, one sample each, and when."""
    schedule, now_s = Schedule[Job](1), 0.0
    for _ in range(steps):
        schedule.offer(now_s, job_of(client, model, math.inf))
        while (step := schedule.next(now_s)[0]) is not None:
            now_s += step.planned_s
            schedule.done(now_s, step.planned_s)
    return schedule, now_s


def test_frames_that_take_long_are_no_sign_of_greed() -> None:
    """Who took nothing lately gives way to nobody, whatever it has in the plan."""
    model, schedule = Model([10.0, 1.0], 1.0), Schedule[Job](1)
    for client in "aab":
        schedule.offer(0.0, job_of(client, model))
    assert schedule.offer(0.0, job_of("c", model, boundary=1)) == pytest.approx(0.034)
    assert {schedule.rank(client) for client in "abc"} == {(False, False)}


def test_a_wait_is_that_of_who_asks() -> None:
    model = Model([10.0], 1.0)
    schedule, now_s = busy_with("greedy", model)
    for client in ("greedy",) * 5:
        schedule.offer(now_s, job_of(client, model, now_s + 1.0))
    assert schedule.rank("newcomer") == (True, False)
    assert schedule.wait_s(now_s, model, 0, "newcomer") == pytest.approx(0.0)
    for client in ("greedy", schedule.greediest):
        assert schedule.wait_s(now_s, model, 0, client) == pytest.approx(0.05)
    # What it has in the plan is its own: with that it asks for more than half as much.
    for _ in range(12):
        schedule.offer(now_s, job_of("newcomer", model, now_s + 1.0))
    assert schedule.rank("newcomer") == (False, False)
    assert schedule.wait_s(now_s, model, 0, "newcomer") == pytest.approx(0.17)
    assert schedule.rank("greedy") == (False, True)


def test_what_gives_way_takes_nothing_of_a_share() -> None:
    """One frame in the plan is no share where all that is before its deadline gives way."""
    model = Model([10.0], 1.0)
    schedule, now_s = busy_with("greedy", model, 60)
    for _ in range(30):
        schedule.offer(now_s, job_of("greedy", model, math.inf))
    for _ in range(2):
        schedule.offer(now_s, job_of("modest", model, now_s + 0.1))
    for _ in range(30):
        with pytest.raises(Refused):
            schedule.offer(now_s, job_of("greedy", model, now_s + 0.1))


def test_a_frame_that_takes_long_goes_before_nobody() -> None:
    model, long = Model([10.0], 1.0), Model([150.0], 1.0)
    schedule, now_s = busy_with("greedy", model)
    schedule.offer(now_s, job_of("greedy", model, now_s + 1.0))
    assert schedule.wait_s(now_s, long, 0, "newcomer") == pytest.approx(0.01)
    assert schedule.wait_s(now_s, model, 0, "newcomer") == pytest.approx(0.0)


def test_so_much_goes_ahead_and_the_rest_waits() -> None:
    """Forty names at once, before thirty frames of the one that took all so far."""
    model = Model([10.0], 1.0)
    schedule, now_s = busy_with("greedy", model, 60)
    for _ in range(30):
        schedule.offer(now_s, job_of("greedy", model, math.inf))
    ends_s = [schedule.offer(now_s, job_of(f"x{n}", model, math.inf)) - now_s for n in range(40)]
    ahead = [end_s for end_s in ends_s if end_s < 0.3]
    assert ahead == pytest.approx([0.01 * n for n in range(1, 21)])
    assert ends_s[20:] == pytest.approx([0.01 * n for n in range(51, 71)])


@pytest.mark.parametrize(("budget_s", "takes_s"), [(0.5, 0.02), (0.0101, 0.01)])
def test_who_took_much_goes_by_deadline_before_others_only_where_it_must(
    budget_s: float, takes_s: float
) -> None:
    model = Model([10.0], 1.0)
    schedule, now_s = busy_with("greedy", model)
    schedule.offer(now_s, job_of("modest", model, now_s + 1.0))
    end_s = schedule.offer(now_s, job_of("greedy", model, now_s + budget_s))
    assert end_s - now_s == pytest.approx(takes_s)


def test_who_has_as_much_as_others_joins_them_instead_of_going_ahead() -> None:
    model, long, schedule = Model([10.0], 0.1), Model([100.0], 1.0), Schedule[Job](8)
    schedule.offer(0.0, job_of("a", long, math.inf))
    schedule.offer(0.0, job_of("b", model, math.inf))
    assert schedule.offer(0.0, job_of("c", model, 1.0)) == pytest.approx(0.111)


def test_all_pay_who_are_in_a_step() -> None:
    model, schedule = Model([10.0, 10.0], 0.0), Schedule[Job](8)
    for boundary, client in enumerate("ab"):
        schedule.offer(0.0, job_of(client, model, boundary=boundary))
    for end_s in (0.01, 0.02):
        assert schedule.next(end_s - 0.01)[0] is not None
        schedule.done(end_s, 0.01)
    seconds = schedule._taken.standing("", 0.0).seconds
    assert seconds == pytest.approx({"a": 0.015 + NEW_S, "b": 0.005 + NEW_S})
