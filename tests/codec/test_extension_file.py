"""Without a compiler, and with an extension that is damaged or foreign, numpy's form serves.

In an environment of its own, from the sdist's files, with this environment's libraries.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from splitpoint.codec.native.extension import LAYOUT

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "codec" / "native"
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

    @property
    def record(self) -> Path:
        (found,) = self.packages.glob("splitpoint-*.dist-info/RECORD")
        return found

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


def compiled(source: Path, library: Path) -> None:
    stable = ["-DPy_LIMITED_API=0x030B0000"] if sys.version_info >= (3, 11) else []
    headers = sysconfig.get_config_var("INCLUDEPY")
    subprocess.run(
        ["gcc", "-std=c11", "-ffp-contract=off", "-shared", "-fPIC", *stable, f"-I{headers}",
         *map(str, source.glob("*.c")), "-lm", "-o", str(library)],
        check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return installed(tmp_path_factory.mktemp("without") / "env", CC="/nonexistent")


@pytest.fixture
def whole(without: Installed) -> Iterator[Installed]:
    """The extension is put there, and recorded, as pip does."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    library, record = without.native / "_loops.abi3.so", without.record
    before = record.read_text()
    compiled(NATIVE, library)
    digest = base64.urlsafe_b64encode(hashlib.sha256(library.read_bytes()).digest())
    name = library.relative_to(without.packages).as_posix()
    record.write_text(f"{before}{name},sha256={digest.decode().rstrip('=')},1\n")
    assert without.run("-c", SAYS).stdout == "\n"
    yield without
    library.unlink()
    record.write_text(before)


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


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def foreign(data: bytes) -> bytes:
    """For another processor: 183 is 64-bit Arm, 62 x86-64."""
    machine = 62 if int.from_bytes(data[18:20], "little") == 183 else 183
    return data[:18] + machine.to_bytes(2, "little") + data[20:]


def test_what_is_no_whole_extension_is_refused_in_a_line(whole: Installed) -> None:
    """Also where loading it would kill the process: with a page of zeros, or cut off."""
    (library,) = whole.native.glob("*.so")
    data = library.read_bytes()
    cases = {
        "empty": b"", "garbage": b"\x00garbage" * 500, "a text": b"#!/bin/sh\n",
        "another processor's": foreign(data), "one bit": flipped(data, 20_000),
        "page of zeros": zeroed(data, 8192, 12288),
        "zeros to the end": zeroed(data, 4096, len(data)),
        **{f"cut off at {n}": data[:n] for n in (3, 64, 1000, 4096, len(data) // 2)},
    }  # fmt: skip
    for name, damaged in cases.items():
        assert damaged != data
        library.write_bytes(damaged)
        done = whole.run("-c", ENCODES + SAYS)
        assert done.returncode == 0, (name, done.returncode, done.stderr)
        (line,) = done.stdout.splitlines()
        assert line, name


def test_what_is_cut_off_is_seen_without_a_record(whole: Installed) -> None:
    """As where files were copied, and not installed."""
    (library,) = whole.native.glob("*.so")
    data = library.read_bytes()
    whole.record.write_text("")
    for length in (64, 1000, 4096, len(data) // 2):
        library.write_bytes(data[:length])
        done = whole.run("-c", SAYS)
        assert done.returncode == 0, (length, done.returncode)
        assert done.stdout.strip()


def test_one_of_another_version_is_refused(whole: Installed, tmp_path: Path) -> None:
    """Compiled of sources whose arrays mean something else."""
    source = Path(shutil.copytree(NATIVE, tmp_path / "native"))
    header = source / "loops.h"
    own = f"#define SP_LAYOUT {LAYOUT}\n"
    assert own in header.read_text()
    header.write_text(header.read_text().replace(own, f"#define SP_LAYOUT {LAYOUT + 1}\n"))
    whole.record.write_text("")
    (library,) = whole.native.glob("*.so")
    compiled(source, library)
    said = whole.run("-c", SAYS).stdout
    assert f"of another version of splitpoint (layout {LAYOUT + 1}, not {LAYOUT})" in said
