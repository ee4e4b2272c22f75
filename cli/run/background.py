"""A `splitpoint` command that runs in the background while another one uses it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from types import TracebackType

from splitpoint.codec import SplitpointError

_READY = re.compile(r"listening on (\S+)")
_START_TIMEOUT_S = 60


class DemoError(SplitpointError):
    """A part of the demo did not start or did not answer."""


class Process:
    """A `splitpoint` command that runs in the background until it is left, and where it listens."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.address = ""

    def __enter__(self) -> Process:
        """Starts it and waits until it says where it listens."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from splitpoint.cli.main import main; main()",
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = []
        deadline = time.monotonic() + _START_TIMEOUT_S
        for line in self._process.stderr:
            said.append(line.strip())
            match = _READY.search(line)
            if match is not None:
                self.address = match[1]
                return self
            if time.monotonic() > deadline:
                break
        self.__exit__(None, None, None)
        raise DemoError(f"`splitpoint {self._arguments[0]}` did not start: {' / '.join(said[-3:])}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops it as a service manager would, and by force if that does not help."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._process.kill()
