"""`splitpoint serve --ray` as a process, its replicas' processes, and an update while it runs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from processes import free_port

# Without warnings as errors: Ray's own are not ours to mend.
MAIN = [sys.executable, "-c", "from splitpoint.cli.main import main; main()"]
UPDATE = """
import sys
import ray
from ray import serve
from splitpoint.cloud.ray.app import application
from splitpoint.cloud.ray.options import APP, ROUTE, RayOptions
ray.init(address="auto", log_to_driver=False)
options = RayOptions(bundles=[sys.argv[1]], device="cpu", replicas=2, grace_s=2, max_batch=64)
serve.run(application(options), name=APP, route_prefix=ROUTE)
"""
START_S = 120.0


def command_of_the_guide() -> str:
    """The guide's own line for two replicas."""
    guide = Path(__file__).parents[1] / "docs" / "guides" / "scale-out.md"
    text = guide.read_text(encoding="utf-8")
    (line,) = re.findall(r"^splitpoint serve .* --ray .*$", text, re.MULTILINE)
    assert "--replicas 2 " in line
    return line


class RayCluster:
    """Two replicas of one bundle behind Ray's proxy."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        command = (
            command_of_the_guide().replace("lite0.split", str(bundle)).replace("7070", str(port))
        )
        self._process = subprocess.Popen(
            [*MAIN, *shlex.split(command)[1:], "--device", "cpu", "--grace", "2",
             "--http-port", str(free_port())],
            stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if re.search(r"listening on \S+", line):
                return
        raise AssertionError(f"it ended before it listened: {said}")

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas that live."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if "ServeReplica" in "".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:  # it ended meanwhile
                continue
        return found

    def update(self) -> None:
        """Replaces every replica by one with another option; returns when they serve."""
        subprocess.run(
            [sys.executable, "-c", UPDATE, str(self._bundle)],
            check=True, capture_output=True, timeout=START_S,
        )  # fmt: skip

    def wait_for(self, count: int) -> None:
        """Until so many replicas live again."""
        end_s = time.monotonic() + START_S
        while len(self.replicas()) < count:
            assert time.monotonic() < end_s, "Ray does not replace the replica"
            time.sleep(0.2)

    def end(self) -> int:
        """Ends it in order; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=60)
        return self._process.returncode


@contextmanager
def ray_cluster(bundle: Path) -> Iterator[RayCluster]:
    cluster = RayCluster(bundle)
    try:
        yield cluster
    finally:
        assert cluster.end() == 0
