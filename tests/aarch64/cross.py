"""The extension for 64-bit Arm, compiled on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from arm_root import COMPILER, SetupError
from wheels import ROOT

LIBRARY = Path("splitpoint", "codec", "native", "_loops.abi3.so")


def compile_extension(site: Path) -> Path:
    """As setup.py builds it, but for Arm, into the packages at `site`; `SetupError`.

    The stable ABI's headers are the same on both machines.
    """
    if sys.version_info < (3, 11):
        raise SetupError("the stable ABI needs Python 3.11 or later: run this with such a one")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(site),
             "--build-temp", folder],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"CC": COMPILER, "LDSHARED": f"{COMPILER} -shared"},
        )  # fmt: skip
    library = site / LIBRARY
    if done.returncode != 0 or not library.exists():
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise SetupError(f"{COMPILER} did not build the extension: {' '.join(last)}")
    return library
