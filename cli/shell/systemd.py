"""Tells systemd that a command is up, alive and stopping (sd_notify), where systemd asks for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping


class Systemd:
    """The service manager that started this process; every call does nothing where there is none.

    `environ` bears NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as systemd sets them.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        wanted = bool(self._path) and ours and microseconds.isdecimal()
        self.watchdog_s = int(microseconds) / 1e6 if wanted else 0.0  # 0: nobody watches

    def ready(self) -> None:
        """The agent or the worker takes frames from now on."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """It is ending what it began."""
        self._tell("STOPPING=1")

    async def keep_alive(self) -> None:
        """Twice in every period of the watchdog says that the event loop still turns."""
        while self.watchdog_s:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _tell(self, state: str) -> None:
        if not self._path:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
            datagrams.setblocking(False)
            try:
                datagrams.sendto(state.encode(), self._path)
            except OSError:  # a manager that does not listen is no reason to stop working
                return
