"""Runs the `splitpoint` command."""

from __future__ import annotations

import os
import sys

from .shell.broken_pipe import readers_may_leave
from .shell.early_signals import signals_end_at_once

# The extra that brings a module; the others are of the extra `cloud`.
_EXTRA = {
    "torch": "torch",
    "onnx": "torch",
    "safetensors": "torch",
    "cv2": "video",
    "paho": "mqtt",
    "prometheus_client": "metrics",
    "ray": "ray",
    "opentelemetry": "otel",
    "zeroconf": "mdns",
    "aiohttp": "http",
}


def main() -> None:
    """Runs the command line.

    0 done, 1 failed with one line of why, 2 wrong usage, 130 ended by Ctrl-C, 141 nobody reads
    what it prints, 143 ended by SIGTERM before it had begun.
    """
    _set_environment()
    with readers_may_leave():
        _run()


def _set_environment() -> None:
    """What libraries read when they are loaded, which is after this."""
    # torch's threads spin while they wait for each other. Where others share the cores, a frame of
    # 20 ms then takes up to a second; without any spinning it takes 35 ms.
    os.environ.setdefault("GOMP_SPINCOUNT", "60000")
    # onnxruntime reports to its makers otherwise.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # gRPC's own lines on stderr say of each lost connection what the agent says in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _run() -> None:
    with signals_end_at_once():  # so nothing above is imported that takes its time
        from splitpoint.codec import SplitpointError

        from .shell.output import say

    try:
        with signals_end_at_once():
            from .app import app

            _keep_blas_to_one_thread()
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


def _keep_blas_to_one_thread() -> None:
    """For a codec's matrix products, which are small: the cores belong to onnxruntime or torch.

    With numpy in several threads as well, a product of 3 ms takes up to 100.
    """
    from threadpoolctl import threadpool_limits  # writes to the environment when imported

    threadpool_limits(1, "blas")
