"""The ways of a frame and of a model lead through files, folders and threads that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WAYS = PAGE.partition("## One frame's way")[2].partition("## Rooms")[0]


def test_every_place_is_there() -> None:
    places = re.findall(r"`((?:codec|partition|proto|edge|cloud|cli)/[\w./]*)`", WAYS)
    assert len(places) > 20
    for place in places:
        assert (ROOT / place).exists(), place


def test_every_thread_is_named_so() -> None:
    sources = [path.read_text(encoding="utf-8") for room in ("edge", "cloud")
               for path in (ROOT / room).rglob("*.py")]  # fmt: skip
    named = set(re.findall(r"name(?:_prefix)?=\"(splitpoint-\w+)\"", "".join(sources)))
    said = set(re.findall(r"`(splitpoint-\w+)`", WAYS))
    assert said
    assert said <= named
