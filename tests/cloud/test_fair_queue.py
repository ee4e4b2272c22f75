"""Whose work is next: decisions only, time is a number that the test makes up."""

from __future__ import annotations

from collections import Counter

from splitpoint.cloud.frames.fair_queue import FairQueue


def run(
    queue: FairQueue[float], seconds: float, threads: int = 1
) -> tuple[Counter[str], Counter[str]]:
    """Who had how many turns and seconds, where an item is the time that it takes."""
    turns_of: Counter[str] = Counter()
    seconds_of: Counter[str] = Counter()
    now_s, running = 0.0, []
    while now_s < seconds:
        while len(running) < threads and (turn := queue.next()) is not None:
            running.append((now_s + turn[1], *turn))
        if not running:
            break
        running.sort()
        now_s, client, took_s = running.pop(0)
        queue.done(client, took_s)
        turns_of[client] += 1
        seconds_of[client] += took_s
    return turns_of, seconds_of


def test_in_order_where_one_connection_is_alone() -> None:
    queue = FairQueue[int]()
    for number in range(5):
        queue.add("a", "1", number)
    found = []
    while (turn := queue.next()) is not None:
        found.append(turn)
        queue.done("a", 1.0)
    assert found == [("a", number) for number in range(5)]
    assert not len(queue)


def test_time_is_shared_and_not_turns() -> None:
    queue = FairQueue[float]()
    for _ in range(2000):
        queue.add("long", "1", 0.1)
        queue.add("short", "2", 0.01)
    counts, seconds = run(queue, 10.0)
    assert abs(seconds["long"] - seconds["short"]) <= 0.2
    assert counts["short"] >= 9 * counts["long"]


def test_a_newcomer_is_next_whatever_the_others_have_queued() -> None:
    queue = FairQueue[float]()
    for connection in range(64):
        for _ in range(4):
            queue.add("hog", str(connection), 0.01)
    run(queue, 0.5)
    queue.add("neighbour", "n", 0.01)
    assert queue.next() == ("neighbour", 0.01)


def test_one_with_much_running_waits_for_one_with_none() -> None:
    """Until they are done nobody knows what they take."""
    queue = FairQueue[str]()
    for number in range(3):
        queue.add("hog", "1", f"h{number}")
    assert queue.next() == ("hog", "h0")
    queue.add("neighbour", "2", "n0")
    assert queue.next() == ("neighbour", "n0")
    assert queue.next() == ("hog", "h1")


def test_connections_of_one_client_take_turns() -> None:
    queue = FairQueue[str]()
    for number in range(3):
        queue.add("a", "busy", f"b{number}")
    queue.add("a", "other", "o")
    found = []
    while (turn := queue.next()) is not None:
        found.append(turn[1])
        queue.done("a", 1.0)
    assert found == ["b0", "o", "b1", "b2"]


def test_nobody_saves_up_turns_by_staying_away() -> None:
    queue = FairQueue[float]()
    for _ in range(1000):
        queue.add("busy", "1", 0.1)
    run(queue, 5.0)
    for _ in range(1000):
        queue.add("late", "2", 0.1)
    counts, _ = run(queue, 10.0)
    assert abs(counts["late"] - counts["busy"]) <= 2


def test_nobody_gets_rid_of_what_it_took_by_coming_one_at_a_time() -> None:
    queue = FairQueue[float]()
    for _ in range(1000):
        queue.add("many", "1", 0.01)
    seconds: Counter[str] = Counter()
    single_waits = False
    for _ in range(400):
        if not single_waits:
            queue.add("single", "2", 0.1)
            single_waits = True
        turn = queue.next()
        assert turn is not None
        client, took_s = turn
        single_waits = single_waits and client != "single"
        queue.done(client, took_s)
        seconds[client] += took_s
    assert abs(seconds["single"] - seconds["many"]) <= 0.2


def test_what_nobody_waits_for_is_gone() -> None:
    queue = FairQueue[str]()
    for item in ("x", "y", "z"):
        queue.add("a", "1", item)
    queue.discard("a", "1", "y")
    queue.discard("a", "1", "never there")
    queue.discard("b", "1", "x")
    assert len(queue) == 2
    assert queue.next() == ("a", "x")
    queue.discard("a", "1", "z")
    assert queue.next() is None
    queue.done("a", 1.0)
    assert not queue.known


def test_clients_that_have_gone_are_forgotten() -> None:
    queue = FairQueue[float]()
    for number in range(2000):
        queue.add(f"client-{number}", str(number), 0.01)
    run(queue, 1e9)
    assert not queue.known
    for _ in range(2000):
        queue.add("stays", "1", 0.01)
    for number in range(1000):
        queue.add(f"client-{number}", str(number), 0.01)
        run(queue, 0.03)
    assert len(queue.known) < 5
