"""The `splitpoint` command: its subcommands and what they are called."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from .certs_cmd import certs
from .compile_cmd import compile_
from .demo_cmd import demo
from .doctor_cmd import doctor
from .emulate_cmd import emulate
from .inspect_cmd import inspect
from .plan_cmd import plan
from .profile_cmd import profile
from .run_cmd import run
from .serve_cmd import serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Split inference: the early layers on the device, the rest on a GPU server.",
)
app.command("compile")(compile_)
for command in (inspect, profile, plan, serve, run, certs, emulate, demo, doctor):
    app.command()(command)


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
