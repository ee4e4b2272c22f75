"""What is built is whole: the wheel of the sdist, in an environment that knows no checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from splitpoint.partition.bundle.bundle import Bundle

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "codec" / "native"
ROOMS = ("codec", "partition", "proto", "edge", "cloud", "cli")

pytestmark = pytest.mark.slow


def sources() -> set[str]:
    """The product's files as they are called in a wheel."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {f"splitpoint/{path.relative_to(ROOT)}" for path in paths}


@pytest.fixture(scope="module")
def built_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built of it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_both_hold_every_module(built_files: tuple[Path, Path]) -> None:
    sdist, wheel = built_files
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.endswith(".py")} == sources()
    assert {f"splitpoint/{room}/py.typed" for room in ROOMS} <= names
    assert "splitpoint/proto/splitpoint.proto" in names
    for name in ("page.html", "page.css", "page.js", "login.html", "icon.svg"):
        assert f"splitpoint/cli/service/{name}" in names
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.partition("/")[2] for name in sources()} <= packed
    loops = {str(path.relative_to(ROOT)) for path in NATIVE.glob("*.[ch]")}
    assert len(loops) > 5
    assert loops | {"setup.py"} <= packed


def test_a_wheel_has_the_extension_and_not_its_source(built_files: tuple[Path, Path]) -> None:
    wheel = built_files[1]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith((".c", ".h"))] == []
    libraries = [name for name in names if name.endswith(".so")]
    if shutil.which("gcc") is None:
        assert libraries == []
    elif sys.version_info >= (3, 11):
        assert libraries == ["splitpoint/codec/native/_loops.abi3.so"]
        assert "-cp311-abi3-" in wheel.name  # for all later ones, too
    else:
        assert len(libraries) == 1


def test_the_installed_command_runs(
    built_files: tuple[Path, Path], small_bundle: Bundle, tmp_path: Path
) -> None:
    """With this environment's libraries, and without its splitpoint."""
    home = tmp_path / "env"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    target = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    done = subprocess.run(
        [*install, "--no-index", str(built_files[1])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (target / "libraries.pth").write_text("\n".join(libraries) + "\n")

    def run(*command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import splitpoint.cli as c, splitpoint.proto as p; print(c.__file__, p.__file__)"
    assert all(file.startswith(str(target)) for file in run(str(python), "-c", where).split())
    command = str(home / "bin" / "splitpoint")
    assert run(command, "--version").startswith("splitpoint ")
    document = json.loads(run(command, "inspect", str(small_bundle.folder), "--json"))
    assert document["digest"] == small_bundle.digest
