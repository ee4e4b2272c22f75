"""What the site takes from the code: commands with their options, errors, the Python reference."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import typer
from splitpoint.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import rooms  # noqa: E402
from site_graph import svg_of  # noqa: E402

GRAPH = re.compile(r"^```mermaid\n(graph TD\n.*?)^```$", re.MULTILINE | re.DOTALL)
ROOT_ERROR = "SplitpointError"


def on_startup(**_: Any) -> None:
    """Lays out the rooms as the package that they are installed as, for the Python reference.

    An editable install finds them by an import hook, which the reference's reader does not follow;
    and it looks at its paths before `on_config`.
    """
    package = ROOT / "build" / "checkout" / "splitpoint"
    package.mkdir(parents=True, exist_ok=True)
    for room in rooms.ROOMS:
        link = package / room
        if not link.is_symlink():
            link.symlink_to(ROOT / room)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts commands, errors and drawings where a page asks for them."""
    for name, drawn in (("commands", commands), ("errors", errors)):
        before, mark, rest = markdown.partition(f"<!-- {name} -->")
        if mark:
            markdown = before + drawn() + rest.partition("<!-- end -->")[2]
    return GRAPH.sub(lambda match: svg_of(match[1]), markdown)


def commands() -> str:
    """Every command with its arguments and options, as the command itself knows them."""
    group = typer.main.get_command(app)
    found: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    return "\n\n".join(_command(name, command) for name, command in found.items())


def errors() -> str:
    """The tree of errors below `SplitpointError`, each with what it says of itself."""
    below: dict[str, list[tuple[str, str, str]]] = {}
    for module, path in rooms.modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                says = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                for base in node.bases:
                    if isinstance(base, ast.Name):
                        below.setdefault(base.id, []).append((node.name, module, says))

    def lines(errors: list[tuple[str, str, str]], depth: int = 0) -> list[str]:
        found: list[str] = []
        for name, module, says in sorted(errors):
            found.append(f"{'    ' * depth}- `{name}` ({module}): {says}")
            found += lines(below.get(name, []), depth + 1)
        return found

    parts = []
    for room in reversed(rooms.ROOMS):
        of_room = [each for each in below[ROOT_ERROR] if each[1].split(".")[0] == room]
        parts += [f"### Of {room}/", "", *lines(of_room), ""]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    parameters = [each for each in command.params if each.name != "help"]
    arguments = " ".join(
        f"[{_name(each)}]" if not each.required else _name(each)
        for each in parameters
        if not _is_option(each)
    )
    parts = [f"## splitpoint {name}", "", (command.help or "").strip(), ""]
    parts += ["```text", f"splitpoint {name} [OPTIONS] {arguments}".rstrip(), "```"]
    if parameters:
        parts += ["", "| option | default | meaning |", "| --- | --- | --- |"]
        parts += [_row(parameter) for parameter in parameters]
    return "\n".join(parts)


def _row(parameter: Any) -> str:
    option = _is_option(parameter)
    names = [*parameter.opts, *parameter.secondary_opts] if option else [_name(parameter)]
    default = "" if parameter.default is None or callable(parameter.default) else parameter.default
    if isinstance(parameter.default, bool):
        default = "on" if parameter.default else ""
    if parameter.required:
        default = "required"
    meaning = getattr(parameter, "help", None) or ""
    cells = (", ".join(f"`{name}`" for name in names), f"{default}", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _name(parameter: Any) -> str:
    return (parameter.metavar or parameter.name or "").upper()


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")
