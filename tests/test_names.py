"""One name, one idea: no class, function or shared constant of ours is defined in two modules."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import rooms

# The same idea on either side, or the plainest word for two that never meet.
TWICE = {
    "Session": "what exists while an agent, or a worker, is entered",
    "Intake": "how a frame is taken in on the device, and on the worker",
    "Stage": "where a frame is: of its stream, and of what a worker does with it",
    "Progress": "a worker says what it loads in one line, compile and profile count steps",
    "Clock": "a function that returns seconds",
    "Floats": "an array of float64",
    "app": "the command, and Ray's application",
}


def defined(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Public names of a module, and whether it is a constant."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, False
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Name):
                    yield part.id, part.id.isupper()


def names() -> dict[str, list[str]]:
    """Every public name with the modules that define it; of constants, those that travel."""
    trees = {
        module: ast.parse(path.read_text(encoding="utf-8")) for module, path in rooms.modules()
    }
    imported = {
        (node.module or "").rpartition(".")[2] + "." + alias.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for name, constant in defined(tree):
            travels = f"{module.rpartition('.')[2]}.{name}" in imported
            if name != "log" and not name.startswith("_") and (travels or not constant):
                found[name].append(module)
    return found


def test_no_name_stands_for_two_ideas() -> None:
    twice = {name: modules for name, modules in names().items() if len(modules) > 1}
    unknown = {name: modules for name, modules in twice.items() if name not in TWICE}
    assert unknown == {}
    assert twice.keys() == TWICE.keys()  # no exception outlives its reason


def test_names_are_read() -> None:
    source = "A = b = 1\nC: int = 2\n_d = 3\ndef e(): ...\nclass F: ...\n"
    assert list(defined(ast.parse(source))) == [
        ("A", True), ("b", False), ("C", True), ("_d", False), ("e", False), ("F", False),
    ]  # fmt: skip
