"""Where Prometheus asks: HTTP, for few at a time, and none of them for long."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from .errors import ServeError

# Each connection has a thread, and by itself it waits for ever for its request.
MOST_ASKING, SCRAPE_S = 32, 10.0


class MetricsServer:
    """Serves `http://HOST:PORT/metrics` from threads of its own until it is closed.

    Port 0 takes any free one; `address` says which. Raises `ServeError` for one that is in use.
    """

    def __init__(self, listen: str, collector: Collector) -> None:
        host, _, port = listen.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ServeError(f"--metrics {listen} is no HOST:PORT", "as in 127.0.0.1:9464")
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]") or "127.0.0.1", registry
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise ServeError(
                f"metrics cannot listen on {listen}: {why}", "give another --metrics HOST:PORT"
            ) from error
        self._server.RequestHandlerClass = _bounded(self._server.RequestHandlerClass)
        self.address = f"{host or '127.0.0.1'}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _bounded(handler: Any) -> Any:
    """The same handler for so many connections at a time, each for `SCRAPE_S` at most."""
    places = threading.Semaphore(MOST_ASKING)

    class Bounded(handler):  # type: ignore[misc]
        def handle(self) -> None:
            if not places.acquire(blocking=False):
                return
            over = threading.Timer(SCRAPE_S, self._hang_up)
            over.daemon = True
            try:
                over.start()
                with contextlib.suppress(OSError):  # it has hung up
                    super().handle()
            finally:
                over.cancel()
                places.release()

        def _hang_up(self) -> None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    return Bounded
