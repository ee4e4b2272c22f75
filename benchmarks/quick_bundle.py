"""Bundles for a run that was given none: compiled in a process of its own.

No torch in here: scripts that only run what was compiled start seconds sooner without it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUICK = "quick_model:small"  # what `--quick` runs


def compiled(model: str, target: Path, *options: str) -> Path:
    """What `splitpoint compile` writes."""
    print(f"compiling {model}", file=sys.stderr, flush=True)
    main = "from splitpoint.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-c", main, "compile", model, "--out", str(target), *options],
        check=True, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return target
