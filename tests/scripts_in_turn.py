"""Scripts that run in processes of their own, and start in a moment.

Each is forked from one process that has imported torch and its compiler, which takes seconds and
does nothing else: no thread has begun there, and neither gRPC nor onnxruntime, which begin some, is
loaded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREPARED = """
import json, os, runpy, sys
import onnxscript.optimizer, torch.export._trace
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = [job["script"], *job["arguments"]]
        sys.path.insert(0, os.path.dirname(job["script"]))
        runpy.run_path(job["script"], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """As of `subprocess.run`."""

    returncode: int
    stdout: str
    stderr: str


class Scripts:
    """See above; one at a time."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(self, script: Path, *arguments: str) -> Done:
        """Until it ends."""
        out, err = self._folder / "out", self._folder / "err"
        job = {"script": str(script), "arguments": arguments, "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        code = self._process.stdout.readline()
        assert code, "the process that the scripts are forked from has ended"
        return Done(int(code), out.read_text(), err.read_text())


@contextmanager
def scripts_in_turn(folder: Path, cwd: Path) -> Iterator[Scripts]:
    """`folder` is for what they print; `cwd` is where they run."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARED],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd, start_new_session=True,
    )  # fmt: skip
    try:
        yield Scripts(process, folder)
    finally:
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # a script hangs
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
