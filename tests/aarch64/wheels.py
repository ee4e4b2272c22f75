"""The edge's wheel set for 64-bit Arm, as pip resolves it on any machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# The C libraries of Raspberry Pi OS 12 and of JetPack 6 admit all of these. pip takes each platform
# to the letter: the older ones must be named too.
NEWEST_GLIBC, OLDEST_GLIBC = 28, 17


class PipError(RuntimeError):
    """pip failed; the message is its last line, `offline` whether it did not get through."""

    def __init__(self, output: str) -> None:
        lines = [line for line in output.splitlines() if line.startswith("ERROR")]
        super().__init__(lines[-1] if lines else output.strip()[-300:])
        self.offline = any(
            sign in output
            for sign in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
        )


def pyproject() -> dict[str, object]:
    """The repository's own."""
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return found


def base_dependencies(python: str) -> list[str]:
    """What the edge needs on 64-bit Arm, as pyproject.toml has it, without markers.

    pip would evaluate those for the machine and the Python that it runs on.
    """
    project = pyproject()["project"]
    assert isinstance(project, dict)
    environment = {"python_version": python, "platform_machine": "aarch64",
                   "platform_system": "Linux"}  # fmt: skip
    found = map(Requirement, project["dependencies"])
    return [
        f"{each.name}{each.specifier}"
        for each in found
        if each.marker is None or each.marker.evaluate(environment)
    ]


def name_of(requirement: str) -> str:
    """`Typing_Extensions>=4` is `typing-extensions`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def for_arm(python: str) -> list[str]:
    """pip's options for CPython `python` (`3.11`) on 64-bit Arm with glibc 2.28 or newer."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
    platforms = [part for tag in [*tags, "manylinux2014_aarch64"] for part in ("--platform", tag)]
    return ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]


def pip(*arguments: str) -> str:
    """Standard output of pip of this Python; `PipError` if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PipError(done.stdout + done.stderr)
    return done.stdout


def resolve(requirements: Sequence[str], python: str) -> list[str]:
    """File names of the wheels that would be installed with all they need; none is downloaded.

    `PipError` where one has no wheel.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip(
            "install", "--dry-run", "--quiet", "--retries", "1", "--ignore-installed",
            "--report", str(report), "--target", folder, *for_arm(python), *requirements,
        )  # fmt: skip
        installs = json.loads(report.read_text("utf-8"))["install"]
    return sorted(item["download_info"]["url"].rpartition("/")[2] for item in installs)
