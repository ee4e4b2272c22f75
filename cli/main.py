"""The `splitpoint` command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from splitpoint.codec import SplitpointError

from .certs_cmd import certs
from .compile_cmd import compile_
from .demo_cmd import demo
from .doctor_cmd import doctor
from .emulate_cmd import emulate
from .inspect_cmd import inspect
from .output import say
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

# The extra that brings a module; the others are of the extra `cloud`.
_EXTRA = {
    "torch": "torch",
    "onnx": "torch",
    "safetensors": "torch",
    "cv2": "video",
    "prometheus_client": "metrics",
    "ray": "ray",
    "opentelemetry": "otel",
}


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


def main() -> None:
    """Runs the command line: 0 done, 1 failed with one line of why, 2 wrong usage."""
    # torch's threads spin while they wait for each other. Where others share the cores, a frame of
    # 20 ms then takes up to a second; without any spinning it takes 35 ms. libgomp reads this when
    # torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "60000")
    # onnxruntime reports to its makers otherwise; it reads this when it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # A codec's matrix products are small, and the cores belong to onnxruntime or torch: with numpy
    # in several threads as well, a product of 3 ms takes up to 100.
    from threadpoolctl import threadpool_limits  # writes to the environment when imported

    threadpool_limits(1, "blas")
    try:
        app()
    except SplitpointError as error:
        say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        say(f"error: {error.strerror or error}: {error.filename or 'an operation of the system'}")
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("splitpoint"):
            raise
        extra = _EXTRA.get(error.name.partition(".")[0], "cloud")
        say(f'error: {error.name} is not installed: pip install "splitpoint[{extra}]"')
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
