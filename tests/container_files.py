"""Container files of deploy/, read statement by statement."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EDGE = ROOT / "deploy" / "edge" / "Containerfile"
WORKER = ROOT / "deploy" / "worker" / "Containerfile"


def statements(file: Path) -> list[tuple[str, str]]:
    """Instruction and argument of each statement."""
    text = re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(instruction, argument) for instruction, argument in found]


def arguments_of(file: Path, instruction: str) -> list[str]:
    return [argument for each, argument in statements(file) if each == instruction]
