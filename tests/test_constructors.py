"""No constructor takes more than a reader can hold in mind; records of options may."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import rooms

MOST = 8


def parameters(function: ast.FunctionDef) -> int:
    arguments = function.args
    return len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1  # without self


def constructors(source: str) -> dict[str, int]:
    return {
        node.name: parameters(part)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name == "__init__"
    }


def test_parameters_are_counted() -> None:
    source = "class Wired:\n    def __init__(self, a, b=0, *rest, c, **more):\n        pass\n"
    assert constructors(source) == {"Wired": 3}


def test_no_constructor_has_many() -> None:
    found = {
        f"{module}.{name}": count
        for module, path in rooms.modules()
        for name, count in constructors(path.read_text(encoding="utf-8")).items()
        if count > MOST
    }
    assert found == {}
