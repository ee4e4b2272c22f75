"""CONTRIBUTING.md names files, functions, tables and make targets that there are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import rooms  # noqa: E402

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE = r"`(\w[\w/]*/\w+\.(?:py|md))`"


def test_files_are_there() -> None:
    files = re.findall(FILE, PAGE)
    assert len(files) > 25
    for file in files:
        assert (ROOT / file).is_file(), file


def test_names_stand_in_the_files_that_are_said_to_have_them() -> None:
    """As in: `NAME` and `OTHER` in `path.py`."""
    found = re.findall(rf"((?:`\w+`(?:\s+and\s+)?)+)\s+in\s+{FILE}", PAGE)
    assert len(found) > 15
    for names, file in found:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(?:class |\s*(?:async )?def )?{name}\b", text, re.M), (
                f"{file} does not define {name}"
            )


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_folder_is_shown() -> None:
    for folder in (*rooms.ROOMS, "tests", "benchmarks", "deploy", "docs"):
        assert re.search(rf"^{folder}/\s", PAGE, re.MULTILINE), folder
        assert (ROOT / folder).is_dir()
