"""Progress of long work, where no terminal shows a bar."""

from __future__ import annotations

import pytest
from splitpoint.cli.shell.output import Steps


def test_a_line_where_something_else_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps() as progress:
        for done in range(5):
            progress("look at pictures" if done < 3 else f"fit table {done}", done, 5)
        progress("done", 5, 5)
    assert capsys.readouterr().err.splitlines() == [
        "[1/5] look at pictures", "[4/5] fit table 3", "[5/5] fit table 4",
    ]  # fmt: skip
