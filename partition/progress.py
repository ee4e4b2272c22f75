"""How those who wait are told how far long work is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""


def tell_nobody(what: str, done: int, total: int) -> None:
    """The progress that nobody watches."""
