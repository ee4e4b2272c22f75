"""What others sent stays within its line, and within bounds."""

from __future__ import annotations

import pytest
from splitpoint.proto.printable import MOST, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gate-3", "gate-3"),
        ("Tür 3, 東門", "Tür 3, 東門"),
        ("a\nWARNING gate-1", "a\\nWARNING gate-1"),
        ("\x1b[31mred\x9b2J", "\\x1b[31mred\\x9b2J"),
        ("back\rover\x00", "back\\rover\\x00"),
        ("line\u2028paragraph\u2029\u202eright", "line\\u2028paragraph\\u2029\\u202eright"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_moves_a_cursor_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_what_is_long_is_cut() -> None:
    assert printable("x" * MOST) == "x" * MOST
    assert printable("x" * 10_000_000) == "x" * MOST + "…"
    assert len(printable("\x00" * 10_000_000)) < 5 * MOST
