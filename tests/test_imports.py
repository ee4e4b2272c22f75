"""The arrows between rooms and sub-rooms, their sizes, and the edge without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import rooms  # noqa: E402

MODULES = dict(rooms.modules())
FULL_FOLDER, LONG_FILE = 15, 300  # modules; lines


@pytest.mark.parametrize("unit", rooms.units().values(), ids=lambda unit: unit.name)
def test_arrows(unit: rooms.Unit) -> None:
    """A room imports what it declares; so does a sub-room, and no more is declared than used."""
    is_room = "/" not in unit.name
    if is_room or unit.may_import is not None:
        assert unit.may_import is not None, f"{unit.name} does not say what it may import"
        assert unit.says, unit.name
    if is_room:
        inside = [u for u in rooms.units().values() if u.room == unit.name]
        used = {rooms.unit_of(name).split("/")[0] for u in inside for name in u.imports}
        assert used - {unit.name} == unit.may_import
    elif unit.may_import is not None:
        own = {name for name in unit.imports if name.startswith(f"{unit.room}/")}
        used = {name.split("/")[1] for name in own}
        used |= {name.split("/")[0] for name in unit.imports - own}
        assert used == unit.may_import


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle among the arrows, if there is one."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for other in sorted(arrows.get(node, ())):
            if found := search(other, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(arrows) if (found := search(node, []))), [])


def test_no_circle_on_any_level() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    by_module = {name: set(rooms.imported(path)) - packages for name, path in MODULES.items()}
    assert circle({name: by_module[name] for name in by_module.keys() - packages}) == []
    faces = set(rooms.ROOMS)  # a face imports what lies behind it
    by_unit = {unit.name: unit.imports - faces for unit in rooms.units().values()}
    assert circle({name: by_unit[name] for name in by_unit.keys() - faces}) == []
    assert circle({room: rooms.units()[room].may_import or set() for room in rooms.ROOMS}) == []


def test_own_room_is_imported_relatively() -> None:
    for path in MODULES.values():
        room = path.relative_to(ROOT).parts[0]
        assert not re.search(rf"^\s*(from|import) splitpoint\.{room}\b", path.read_text(), re.M), (
            path
        )


def test_folders_and_files_are_small() -> None:
    for room in rooms.ROOMS:
        for folder in (ROOT / room, *(p for p in (ROOT / room).iterdir() if p.is_dir())):
            names = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
            assert len(names) <= FULL_FOLDER, folder
    for path in (*MODULES.values(), *(ROOT / "benchmarks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        is_long = len(text.splitlines()) > LONG_FILE
        head = ast.get_docstring(ast.parse(text)) or ""
        assert is_long == ("Longer than others:" in head), path


def test_each_room_is_packaged() -> None:
    """An editable install finds a folder that the wheel would leave out."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.split("\npackages = [", 1)[1].split("]", 1)[0]
    folders = {path.parent for path in MODULES.values() if path.name == "__init__.py"}
    names = {f"splitpoint.{folder.relative_to(ROOT).as_posix()}" for folder in folders}
    assert set(re.findall(r'"(.+?)"', listed)) == {name.replace("/", ".") for name in names}


def test_the_drawing_is_up_to_date() -> None:
    subprocess.run([sys.executable, rooms.__file__, "--check"], check=True)


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
    "paho",
    "opentelemetry",
    "zeroconf",
    "aiohttp",
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
        "import splitpoint.partition.plan.plan, splitpoint.partition.plan.link\n"
        "import splitpoint.cli.app\n"
        "print(sorted(n for n in sys.modules if n in ('torch', 'onnx', 'PIL')))"
    )
    assert "torch" not in out


def test_the_wire_is_described_without_grpc() -> None:
    code = BLOCK.format(blocked=("grpc",)) + "import splitpoint.proto.session.edge_session\n"
    code += "import splitpoint.proto.session.worker_session, splitpoint.proto.frames\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_worker_is_imported_where_memory_has_no_seals() -> None:
    """As on macOS, where only ingest processes are missing."""
    code = (
        "import fcntl, os\n"
        "for name in ('F_ADD_SEALS', 'F_SEAL_SEAL', 'F_SEAL_SHRINK', 'F_SEAL_GROW'):\n"
        "    delattr(fcntl, name)\n"
        "for name in ('memfd_create', 'MFD_CLOEXEC', 'MFD_ALLOW_SEALING'):\n"
        "    delattr(os, name)\n"
        "import splitpoint.cloud.worker\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_a_worker_loads_segments_without_the_capture_half() -> None:
    code = (
        "import sys, splitpoint.cloud.worker\n"
        "halves = ('capture', 'compile', 'export', 'calibrate')\n"
        "names = tuple(f'splitpoint.partition.{half}' for half in halves)\n"
        "print([n for n in sys.modules if n.startswith(names) or n in ('onnx', 'onnxscript')])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
