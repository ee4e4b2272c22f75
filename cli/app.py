"""The `splitpoint` command: its subcommands and what they are called."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from .commands.cache import cache
from .commands.certs import certs
from .commands.compile import compile_
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.emulate import emulate
from .commands.inspect import inspect
from .commands.learn import learn
from .commands.plan import plan
from .commands.profile import profile
from .commands.run import run
from .commands.serve import serve
from .shell.finite import FiniteCommand
from .shell.help_text import SETTINGS, HelpfulGroup

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
    cls=HelpfulGroup,
    help="Split inference: the early layers on the device, the rest on a GPU server.",
)
app.command("compile", cls=FiniteCommand)(compile_)
for command in (inspect, learn, profile, plan, serve, run, cache, certs, emulate, demo, doctor):
    app.command(cls=FiniteCommand)(command)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"splitpoint {version('splitpoint')}\n")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
