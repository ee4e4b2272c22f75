"""`splitpoint serve --ray`: the worker as replicas in a Ray cluster."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from splitpoint.codec import SplitpointError

EVERYWHERE = ("0.0.0.0", "[::]", "::")


class RayError(SplitpointError):
    """What was asked for cannot be done with Ray."""


def serve_on_ray(
    listen: str,
    tell: Callable[[str], None],
    *,
    http_port: int,
    replicas: str,
    max_replicas: int,
    insecure: bool,
    **options: Any,
) -> None:
    """Serves until SIGTERM or Ctrl-C, then lets the replicas drain.

    Raises `RayError` for an address that Ray cannot listen on, `ModuleNotFoundError` without Ray.
    """
    host, _, port = listen.rpartition(":")
    if host not in EVERYWHERE or not port.isdigit() or not 0 < int(port) < 65536:
        raise RayError(
            f"Ray's proxy listens on every interface, and not on {listen}",
            "say so with --listen 0.0.0.0:PORT, and keep others out by other means",
        )
    if not insecure:
        raise RayError(
            "Ray's proxy listens without TLS, where others come by",
            "say --insecure, and put Envoy in front (docs/guides/scale-out.md)",
        )
    if replicas != "auto" and not replicas.isdigit():
        raise RayError(f"{replicas!r} replicas cannot be run", "give a number, or auto")
    from splitpoint.cloud.ray.app import serving_on_ray  # only the extra ray brings it
    from splitpoint.cloud.ray.options import RayOptions

    given = RayOptions(
        replicas=replicas if replicas == "auto" else int(replicas),
        max_replicas=max_replicas,
        **options,
    )
    tell(f"starting {replicas} replicas on Ray")
    signal.signal(signal.SIGTERM, _interrupt)  # Ctrl-C does the same by itself
    with serving_on_ray(given, int(port), http_port):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        tell(f"listening on {listen}")
        stop.wait()
        tell("draining")
    tell("stopped")


def _interrupt(*_: object) -> None:
    """While replicas start: what was started is ended, too."""
    raise KeyboardInterrupt
