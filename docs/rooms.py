"""Draws the imports between the rooms into docs/architecture.md; `--check` only compares.

The first sentence of each `__init__.py` says what lives there, the line "May import:" what it may
import. That is the one table: this script shows it, and tests/test_imports.py holds the code to it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("cli", "edge", "cloud", "partition", "proto", "codec")  # from the top floor down
BEGIN, END = "<!-- drawn by docs/rooms.py -->", "<!-- end of the drawing -->"
GENERATED = "_pb2"


@dataclass
class Unit:
    """A room, a sub-room, or a module that lies directly in a room."""

    name: str
    says: str
    may_import: set[str] | None  # names of units of its room, and of rooms; None: not declared
    imports: set[str] = field(default_factory=set)

    @property
    def room(self) -> str:
        """The room in which it lies."""
        return self.name.split("/")[0]


def modules() -> Iterator[tuple[str, Path]]:
    """The dotted name, without `splitpoint.`, and the file of each module."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if GENERATED not in path.name:
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts).removesuffix(".__init__"), path


@cache
def imported(path: Path) -> frozenset[str]:
    """The modules of ours that a file imports, wherever it does, by dotted name."""
    known = {name for name, _ in modules()}
    package = ["splitpoint", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            name = name.removeprefix("splitpoint.")
            if name.startswith(f"{package[1]}.") and name.endswith(GENERATED):
                continue  # a sub-room's use of its room's generated code
            found.add(name if name in known else name.rpartition(".")[0])
    return frozenset(found & known)


def unit_of(module: str) -> str:
    """The name of the unit in which a module lies."""
    room, *rest = module.split(".")
    return "/".join([room, *rest[:1]])


def units() -> dict[str, Unit]:
    """All units by name, with what they import and what they say that they may import."""
    all_units: dict[str, Unit] = {}
    for module, path in modules():
        name = unit_of(module)
        if name not in all_units:
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            all_units[name] = Unit(name, text.split("\n\n")[0].replace("\n", " "), _declared(text))
        all_units[name].imports |= {unit_of(other) for other in imported(path)} - {name}
    return all_units


def _declared(docstring: str) -> set[str] | None:
    match = re.search(r"^May import: ([^.]*)\.", docstring, re.MULTILINE)
    if match is None:
        return None
    names = {name.strip() for name in re.split(r"[,;\n]+", match[1])}
    return names - {"nothing of ours", ""}


def drawing() -> str:
    """The page's drawn part: the floors, then each room."""
    all_units = units()
    parts = ["```mermaid", "graph TD"]
    for room in ROOMS:
        parts += [f"    {room} --> {other}" for other in sorted(all_units[room].may_import or ())]
    parts.append("```")
    for room in ROOMS:
        inside = {n: u for n, u in all_units.items() if u.room == room and n != room}
        folders = {n: u for n, u in inside.items() if u.may_import is not None}
        parts += ["", f"### {room}/", "", all_units[room].says, ""]
        if folders:
            parts += ["```mermaid", "graph TD"]
            for name, unit in folders.items():
                arrows = sorted(unit.imports & folders.keys())
                parts += [f"    {_short(name)} --> {_short(other)}" for other in arrows]
                parts += [] if arrows else [f"    {_short(name)}"]
            parts += [
                "```",
                "",
                "| sub-room | what lives there | may import |",
                "| --- | --- | --- |",
            ]
            for name, unit in folders.items():
                may = ", ".join(sorted(unit.may_import or ())) or "nothing of ours"
                parts.append(f"| `{_short(name)}/` | {unit.says} | {may} |")
        single = [f"`{_short(n)}` ({u.says.rstrip('.')})" for n, u in inside.items()]
        single = [s for s, n in zip(single, inside, strict=True) if n not in folders]
        if single:
            parts += ["", "Beside them:" if folders else "Its modules:", ""]
            parts += [f"- {text}" for text in single]
    return "\n".join(parts)


def _short(name: str) -> str:
    return name.split("/", 1)[1]


def main() -> None:
    """Writes the page, or fails where it is out of date."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n\n{drawing()}\n\n{END}{after}"
    if "--check" in sys.argv and new != text:
        sys.exit("docs/architecture.md is out of date: python docs/rooms.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
