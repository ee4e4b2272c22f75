"""Where `--save-outputs` puts what the model answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from splitpoint.cli.run.result_lines import OutputFiles
from splitpoint.edge import Outcome, Result


def test_every_output_has_a_file_of_its_own(tmp_path: Path) -> None:
    outputs = {"a/b": 1, "a_b": 2, "a b": 3, "logits": 4, "x:y": 5}
    sink = OutputFiles(tmp_path / "out")
    sink.add(
        Result(
            id=7,
            outcome=Outcome.LOCAL,
            boundary=1,
            codec="",
            outputs={name: np.array([value]) for name, value in outputs.items()},
            total_ms=1.0,
            why="",
            metadata="p.png",
        )
    )
    found = {path.name: int(np.load(path)[0]) for path in (tmp_path / "out").iterdir()}
    assert found == {
        "000007-a%2Fb.npy": 1,
        "000007-a_b.npy": 2,
        "000007-a%20b.npy": 3,
        "000007-logits.npy": 4,
        "000007-x_y.npy": 5,
    }
