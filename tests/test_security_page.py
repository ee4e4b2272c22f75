"""Every row of what docs/guides/secure.md says to hold names tests, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "guides" / "secure.md").read_text(encoding="utf-8")
HEAD = "| it holds that | test |\n| --- | --- |\n"


def rows() -> list[tuple[str, list[str]]]:
    """What holds, and the tests that are named for it."""
    table = PAGE.partition(HEAD)[2].partition("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines()]
    return [(what.strip(), re.findall(r"`([^`]+)`", tests)) for what, tests in cells]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}


def test_every_row_names_a_test() -> None:
    assert len(rows()) >= 25
    assert all(what and tests for what, tests in rows())


def test_every_named_test_exists() -> None:
    for what, tests in rows():
        for name in tests:
            file, _, function = name.partition("::")
            assert function.startswith("test_"), what
            assert function in functions_of(TESTS / file), f"{what}: there is no {name}"
