"""Without a compiler, and with an extension that is damaged or foreign, numpy's form serves.

In an environment of its own, from the sdist's files, with this environment's libraries.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the codecs promise, whatever form their loops have.
CORE = ("test_fkt_codec.py", "test_video.py", "test_affine.py")
SAYS = "from splitpoint.codec.native import why_not; print(why_not())"
ENCODES = """
import numpy as np
from splitpoint.codec import TensorSpec, codec_named
spec, array = TensorSpec(name="x", dtype="float32", shape=(1, 8), batch_dim=0), np.eye(1, 8)
payload = codec_named("q8").encode(array.astype(np.float32), spec)
assert abs(codec_named("q8").decode(payload, spec, 1) - array).max() < 0.01
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installed:
    """An environment with splitpoint, and what its installation said."""

    python: Path
    packages: Path
    said: str

    @property
    def native(self) -> Path:
        return self.packages / "splitpoint" / "codec" / "native"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), *arguments], capture_output=True, text=True, cwd=ROOT, check=False,
            timeout=300, env=os.environ | {"HYPOTHESIS_PROFILE": "quick"},
        )  # fmt: skip


def installed(home: Path, **environment: str) -> Installed:
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--verbose", "--no-deps",
         "--no-index", "--no-build-isolation", str(copied(home / "source"))],
        capture_output=True, text=True, check=False,
        env=os.environ | environment | {"PYTHONPATH": own_libraries()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (packages / "libraries.pth").write_text(own_libraries().replace(os.pathsep, "\n") + "\n")
    return Installed(python, packages, done.stdout + done.stderr)


def own_libraries() -> str:
    return os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))


def copied(into: Path) -> Path:
    """The product's files, without what was built of them."""
    into.mkdir()
    for room in ("codec", "partition", "proto", "edge", "cloud", "cli"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / room, into / room, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, into)
    return into


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return installed(tmp_path_factory.mktemp("without") / "env", CC="/nonexistent")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    return installed(tmp_path_factory.mktemp("with") / "env", CC="gcc")


def test_without_a_compiler_it_is_installed_and_says_so(without: Installed) -> None:
    lines = [line for line in without.said.splitlines() if "several times as long" in line]
    assert len(lines) == 1
    assert "/nonexistent" in lines[0]
    assert "install a C compiler" in lines[0]
    assert not list(without.native.glob("*.so"))
    assert "it was not built" in without.run("-c", SAYS).stdout
    doctor = without.run("-c", "from splitpoint.cli.main import main; main()", "doctor")
    assert "run in numpy" in doctor.stdout + doctor.stderr


def test_without_it_the_codecs_are_what_they_are(without: Installed) -> None:
    done = without.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow",
        *(f"tests/codec/{name}" for name in CORE),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def zeroed(data: bytes, begin: int, end: int) -> bytes:
    return data[:begin] + bytes(end - begin) + data[end:]


def foreign(data: bytes) -> bytes:
    """For another processor: 183 is 64-bit Arm, 62 x86-64."""
    machine = 62 if int.from_bytes(data[18:20], "little") == 183 else 183
    return data[:18] + machine.to_bytes(2, "little") + data[20:]


def test_what_is_no_whole_extension_is_refused_in_a_line(whole: Installed) -> None:
    """Also where loading it would kill the process: with a page of zeros, or cut off."""
    (library,) = whole.native.glob("*.so")
    data = library.read_bytes()
    assert whole.run("-c", SAYS).stdout == "\n"
    cases = {
        "empty": b"", "garbage": b"\x00garbage" * 500, "a text": b"#!/bin/sh\n",
        "another processor's": foreign(data), "one bit": zeroed(data, 30_000, 30_001),
        "page of zeros": zeroed(data, 8192, 12288),
        "zeros to the end": zeroed(data, 4096, len(data)),
        **{f"cut off at {n}": data[:n] for n in (3, 64, 1000, 4096, len(data) // 2)},
    }  # fmt: skip
    for name, damaged in cases.items():
        library.unlink()
        library.write_bytes(damaged)
        done = whole.run("-c", ENCODES + SAYS)
        assert done.returncode == 0, (name, done.returncode, done.stderr)
        (line,) = done.stdout.splitlines()
        assert line, name
    library.unlink()
    library.write_bytes(data)
    assert whole.run("-c", SAYS).stdout == "\n"


def test_one_of_another_version_is_refused(whole: Installed, tmp_path: Path) -> None:
    """Compiled of sources whose arrays mean something else."""
    source = copied(tmp_path / "source")
    header = source / "codec" / "native" / "loops.h"
    text = header.read_text()
    assert "#define SP_LAYOUT 1\n" in text
    header.write_text(text.replace("#define SP_LAYOUT 1\n", "#define SP_LAYOUT 9\n"))
    other = tmp_path / "other.so"
    stable = ["-DPy_LIMITED_API=0x030B0000"] if sys.version_info >= (3, 11) else []
    headers = sysconfig.get_config_var("INCLUDEPY")
    subprocess.run(
        ["gcc", "-std=c11", "-shared", "-fPIC", *stable, f"-I{headers}",
         *map(str, (source / "codec" / "native").glob("*.c")), "-lm", "-o", str(other)],
        check=True,
    )  # fmt: skip
    (library,) = whole.native.glob("*.so")
    kept, record = library.read_bytes(), next(whole.packages.glob("splitpoint-*/RECORD"))
    recorded = record.read_text()
    try:
        record.unlink()  # as where files were copied, and not installed
        shutil.copy(other, library)
        assert "of another version of splitpoint (layout 9, not 1)" in whole.run("-c", SAYS).stdout
    finally:
        library.write_bytes(kept)
        record.write_text(recorded)
