"""The codec's inner loops under AddressSanitizer and UBSan: a million damaged inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

import corpus  # noqa: E402
from cases import write_cases  # noqa: E402
from programs import CannotBuild, build  # noqa: E402

COUNT, SEED = 1_000_000, 1

pytestmark = pytest.mark.slow


def test_a_million_damaged_inputs(tmp_path: Path) -> None:
    """None reads or writes beyond its arrays; what is encoded is decoded as it was."""
    try:
        program = build("million", tmp_path, compiler="gcc")
    except CannotBuild as error:
        pytest.skip(str(error))
    cases = [str(case.path) for case in write_cases(tmp_path)]
    done = subprocess.run(
        [str(program), str(COUNT), str(SEED), str(corpus.FILE), *cases],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = (line.split() for line in done.stdout.splitlines())
    counts = {kind: (int(tried), int(sound)) for kind, tried, sound in rows}
    print(counts)
    kept = sum(1 for _ in corpus.inputs())
    assert sum(tried for tried, _ in counts.values()) == COUNT + kept
    for kind in ("intra", "difference"):
        tried, sound = counts[kind]
        assert tried > COUNT / 5
        assert 0.02 < sound / tried < 0.5  # damage is seen, and is not all that there is
    assert counts["tensor"][1] > COUNT / 30
