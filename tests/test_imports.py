"""The import arrows between the rooms, and the edge without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "codec": set(),
    "partition": {"codec"},
    "proto": {"codec"},
    "edge": {"partition", "proto", "codec"},
    "cloud": {"partition", "proto", "codec"},
    "cli": {"codec", "partition", "proto", "edge", "cloud"},
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, f"{path}: a relative import leaves its room"
        rooms |= {name.split(".")[1] for name in names if name.startswith("splitpoint.")}
    return rooms


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows(room: str) -> None:
    files = list((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        others = imported_rooms(path) - {room}
        assert others <= MAY_IMPORT[room], f"{path.name} imports {others - MAY_IMPORT[room]}"


def test_own_room_is_imported_relatively() -> None:
    for room in MAY_IMPORT:
        for path in (ROOT / room).glob("*.py"):
            if "_pb2" not in path.name:
                assert room not in imported_rooms(path), path


def test_readme_shows_every_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in (*MAY_IMPORT, "tests", "benchmarks", "docs"):
        assert re.search(rf"^{folder}/\s", readme, re.MULTILINE), folder
        assert (ROOT / folder).is_dir()


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""
BLOCKED = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "uvloop",
    "skimage",
    "cv2",
    "prometheus_client",
    "opentelemetry",
)


def run_without_torch(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK.format(blocked=BLOCKED) + code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},  # nothing that this process wrote
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_edge_imports_without_torch() -> None:
    out = run_without_torch(
        "import splitpoint.edge, splitpoint.codec, splitpoint.proto.frames\n"
        "import splitpoint.partition.plan, splitpoint.partition.link, splitpoint.cli.app\n"
        "print(sorted(n for n in sys.modules if n in ('torch', 'onnx', 'PIL')))"
    )
    assert "torch" not in out


def test_import_does_no_work() -> None:
    """No threads, no logging set-up, no environment writes."""
    out = run_without_torch(
        "import os, threading, logging\n"
        "before = dict(os.environ)\n"
        "import splitpoint.edge, splitpoint.cli.app\n"
        "print(threading.active_count(), logging.getLogger().handlers, before == dict(os.environ))"
    )
    assert out.strip() == "1 [] True"


def test_the_command_is_loaded_after_the_environment_of_its_libraries_is_set() -> None:
    """gRPC, onnxruntime and OpenMP read theirs once, when they are loaded."""
    out = run_without_torch(
        "import sys, splitpoint.cli.main\n"
        "print([name for name in ('grpc', 'onnxruntime', 'torch') if name in sys.modules])"
    )
    assert out.strip() == "[]"
