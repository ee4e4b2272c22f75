"""Builds the programs that try hostile inputs: plain C, with the codec's loops and no Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "codec" / "native"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
SANITIZED = (
    "-O2", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
    "-fsanitize=address,undefined,float-cast-overflow",
)  # fmt: skip


class CannotBuild(Exception):
    """No compiler, or one without sanitizers; the message is one line."""


def build(program: str, into: Path, *, compiler: str, flags: tuple[str, ...] = ()) -> Path:
    """`program`.c of this folder, with sanitizers; warnings are errors."""
    if shutil.which(compiler) is None:
        raise CannotBuild(f"there is no {compiler}")
    _try_sanitizers(compiler, flags, into)
    loops = [path for path in sorted(NATIVE.glob("*.c")) if path.name != "module.c"]
    command = [
        compiler, *WARNINGS, *SANITIZED, *flags, f"-I{NATIVE}", f"-I{HERE}",
        *map(str, (HERE / f"{program}.c", HERE / "one_input.c", *loops)),
        "-lm", "-o", str(into / program),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return into / program


def _try_sanitizers(compiler: str, flags: tuple[str, ...], into: Path) -> None:
    """Their libraries are packages of their own on some systems."""
    empty = into / "empty.c"
    body = "int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n == 0; }\n"
    empty.write_text(
        body if any("fuzzer" in flag for flag in flags) else "int main() { return 0; }\n"
    )
    done = subprocess.run(
        [compiler, *SANITIZED, *flags, str(empty), "-o", str(into / "empty")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise CannotBuild(f"{compiler} has no sanitizers: {done.stderr.splitlines()[-1]}")
