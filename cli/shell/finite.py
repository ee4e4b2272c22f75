"""`nan` and `inf`: refused alike, whichever option they are given to."""

from __future__ import annotations

import math
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from splitpoint.codec import SplitpointError

from .help_text import HelpfulCommand

FINITE = "give a finite number"


class NotFiniteError(SplitpointError):
    """An option that takes a number was given one that cannot be reckoned with."""


class FiniteCommand(HelpfulCommand):
    """A command that takes no NaN and no infinity for a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Looks at numbers before their range is checked, which has words of its own for them."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            text = given.get(param.name)
            if isinstance(text, str) and param.name in _numbers(self.callback):
                _check(param.opts[0], text)
        return super().parse_args(ctx, args)


def _check(option: str, text: str) -> None:
    try:
        number = float(text)
    except ValueError:  # wrong usage, as the parser says
        return
    if not math.isfinite(number):
        raise NotFiniteError(f"{option} {text}", FINITE)


def _numbers(callback: Any) -> set[str]:
    """The names of the parameters that take a float."""
    found = set()
    for name, hint in get_type_hints(callback, include_extras=True).items():
        kind = next(iter(get_args(hint)), None)  # of an `Annotated`
        optional = get_origin(kind) in (Union, types.UnionType)
        if float in (get_args(kind) if optional else (kind,)):
            found.add(name)
    return found
