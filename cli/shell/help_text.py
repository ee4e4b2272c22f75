"""How `--help` is laid out: no name is ever cut, however narrow the terminal is.

typer's own tables give each kind of name its column, and cut what no longer fits. Here a long name
has a line to itself, and what it means stands below it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDEST = 120  # columns: longer lines are hard to read
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}

# A line does not end at a hyphen: the words on both sides may be the name of an option.
_UNBREAKABLE = "\N{NON-BREAKING HYPHEN}"


class HelpfulCommand(TyperCommand):
    """A command whose options stand under the headings that `rich_help_panel` gives them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then the options, heading by heading."""
        below: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                names, says = record
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                heading = getattr(param, "rich_help_panel", None) or usual
                says = says.replace("-", _UNBREAKABLE)
                says = says.replace("\\[", "[")  # older typers escape it, for rich
                below[heading].append((names, says))
        for heading in sorted(below, key=_rank):
            with formatter.section(heading):
                formatter.write_dl(below[heading])

    def get_help(self, ctx: Any) -> str:
        """The whole text."""
        return super().get_help(ctx).replace(_UNBREAKABLE, "-")


class HelpfulGroup(TyperGroup):
    """Commands, each with the whole of its first paragraph."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes them in the order in which they were added."""
        says = {name: self.commands[name].help or "" for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, " ".join(text.split("\n\n")[0].split())) for name, text in says.items()]
            )


def _rank(heading: str) -> int:
    """Arguments before the general options; then the other headings, in their own order."""
    return {"Arguments": 0, "Options": 1}.get(heading, 2)
