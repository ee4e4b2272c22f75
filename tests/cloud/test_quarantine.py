"""What broke a batch is known again: by model, boundary and bytes, from every thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from splitpoint.cloud.engine.quarantine import HELD_S, MOST, Quarantine


def test_the_same_bytes_are_another_frame_at_another_boundary_or_model() -> None:
    quarantine = Quarantine()
    quarantine.add("a" * 64, 1, [b"x", b"y"])
    assert quarantine.holds("a" * 64, 1, [b"x", b"y"])
    for model, boundary, payloads in (
        ("b" * 64, 1, [b"x", b"y"]), ("a" * 64, 2, [b"x", b"y"]), ("a" * 64, 1, [b"xy"]),
    ):  # fmt: skip
        assert not quarantine.holds(model, boundary, payloads)


def test_what_another_process_says_is_a_digest_or_nothing() -> None:
    told: list[bytes] = []
    Quarantine(tell=told.append).add("m", 1, [b"x"])
    quarantine = Quarantine()
    quarantine.hold(told[0])
    assert quarantine.holds("m", 1, [b"x"])
    for wrong in (b"", told[0] + b"x", bytes(1 << 20)):
        with pytest.raises(ValueError, match="a digest of"):
            quarantine.hold(wrong)
    assert len(quarantine) == quarantine.added == 1


def test_the_oldest_make_room_and_leave_in_time() -> None:
    now_s = 0.0
    quarantine = Quarantine(lambda: now_s)
    for number in range(MOST + 1):
        quarantine.add("m", 0, [str(number).encode()])
    assert len(quarantine) == MOST
    assert quarantine.added == MOST + 1
    assert not quarantine.holds("m", 0, [b"0"])
    assert quarantine.holds("m", 0, [b"1"])
    now_s = HELD_S
    assert not quarantine.holds("m", 0, [b"1"])
    assert len(quarantine) == 0


class Interrupting(OrderedDict[bytes, float]):
    """Whoever looks at the oldest is interrupted: another thread gets the time to change this."""

    def __init__(self, change: Callable[[], None]) -> None:
        super().__init__()
        self.change = threading.Thread(target=change)

    def values(self) -> Any:
        held = super().values()

        class Held:
            def __iter__(_) -> Iterator[float]:
                found = iter(held)
                if not self.change.ident:
                    self.change.start()
                    self.change.join(0.2)
                return found

        return Held()


def test_it_is_asked_in_one_thread_while_another_adds() -> None:
    quarantine = Quarantine()
    held = quarantine._until_s = Interrupting(lambda: quarantine.add("m", 1, [b"second"]))
    quarantine.add("m", 1, [b"first"])
    assert quarantine.holds("m", 1, [b"first"])
    held.change.join()
    assert quarantine.holds("m", 1, [b"second"])
