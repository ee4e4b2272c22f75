"""One tree of errors: what is raised on purpose is a `SplitpointError`, or stays in its room."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import rooms
from splitpoint.codec import SplitpointError

ROOT_ERROR = "SplitpointError"
# How a part of the product ends something of its own; each is caught in the room that raises it.
CONTROL_FLOW = {
    "proto.wire_scan.OutlineError",
    "cloud.access.waiting_room.Displaced",
    "cloud.between.slab.SlabFull",
    "cloud.frames.decoders.DecoderDied",
    "cloud.schedule.outlook.Refused",
    "cloud.wire.abort.Aborted",
    "cli.service.turned_down.TurnedDown",
    "cli.shell.broken_pipe.ReaderGone",
    "cli.shell.stop_signals.Stopped",
}


def bases() -> dict[str, tuple[str, set[str]]]:
    """By the name of each class: where it stands, and its bases' names."""
    found = {}
    for module, path in rooms.modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {ast.unparse(base).split("[")[0] for base in node.bases}
                found[node.name] = (f"{module}.{node.name}", names)
    return found


def test_every_error_descends_from_one() -> None:
    found = bases()

    def ancestors(name: str) -> set[str]:
        _, above = found.get(name, ("", set()))
        return above | {far for near in above for far in ancestors(near)}

    errors = {name for name in found if ancestors(name) & {"Exception", "BaseException"}}
    assert len(errors) > 30
    outside = {n for n in errors - {ROOT_ERROR} if ROOT_ERROR not in ancestors(n)}
    assert {found[name][0] for name in outside} == CONTROL_FLOW


def test_an_error_is_one_line_that_moves_no_cursor() -> None:
    """Names out of files and from peers stand in it."""
    error = SplitpointError("the node 'a\x1b[2J'\nfails", "say so\r\u202e")
    assert str(error) == "the node 'a\\x1b[2J'\\nfails: say so\\r\\u202e"
    assert (error.what, error.remedy) == ("the node 'a\\x1b[2J'\\nfails", "say so\\r\\u202e")
    assert str(SplitpointError("Tür 3, 東門")) == "Tür 3, 東門"
