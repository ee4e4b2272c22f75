"""The sessions do no I/O: nothing in their room imports what could."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from splitpoint.proto import session

MODULES = sorted(Path(session.__path__[0]).glob("*.py"))
PURE = {"__future__", "collections", "dataclasses", "enum", "math", "operator", "typing"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_nothing_that_waits_or_knows_the_time(path: Path) -> None:
    outside = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outside.add(str(node.module).partition(".")[0])
    assert outside <= PURE
