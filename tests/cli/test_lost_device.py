"""A worker whose GPU fails for good leaves: whoever started it starts it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE_S
from processes import rest_of, splitpoint
from splitpoint.partition.bundle.bundle import Bundle

TESTS = Path(__file__).parents[1]
# The first step that frames are computed in finds out.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from splitpoint.cli.main import main
from splitpoint.cloud.compute.runner import Runner
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error

def fails(self):
    raise accelerator_error(*ILLEGAL_ADDRESS)

Runner.wait = fails
main()
"""


def test_it_exits_1_and_says_why_and_every_frame_has_an_outcome(
    small_bundle: Bundle, album_folder: Path, tmp_path: Path
) -> None:
    serve = ["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *serve],
        stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    said = [process.stderr.readline()]
    while not said[-1].startswith("listening on"):
        assert said[-1], said
        said.append(process.stderr.readline())
    address = said[-1].split()[-1]
    done = splitpoint(
        "run", "--json", "--server", address, "--source", str(album_folder), "--split", "2",
        "--cache", str(tmp_path),
    )  # fmt: skip
    _, err = rest_of(process)
    assert process.wait(PATIENCE_S) == 1
    assert "the GPU is lost (the device failed (AcceleratorError(" in err
    assert "start the worker again" in err
    assert "Traceback" not in err
    frames = [json.loads(line) for line in done.stdout.splitlines() if '"id"' in line]
    # What may have broken it is given to nobody else: the device finishes it, as all others.
    assert len(frames) == len(list(album_folder.iterdir()))
    assert {frame["outcome"] for frame in frames} == {"local"}
