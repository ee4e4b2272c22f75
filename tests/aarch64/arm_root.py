"""A Debian of 64-bit Arm in a folder, and a command that runs its Python on this machine.

No second stage and no kernel support is needed: the packages are only unpacked, and the emulator is
called by name. Only the preparation needs root, and only once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RELEASE, PYTHON = "bookworm", "3.11"  # those of Raspberry Pi OS 12
QEMU, DEBOOTSTRAP, COMPILER = "qemu-aarch64-static", "debootstrap", "aarch64-linux-gnu-gcc"
# The compiler comes with the C library's Arm headers.
PACKAGES = {
    QEMU: ["qemu-user-static"],
    DEBOOTSTRAP: ["debootstrap"],
    "dpkg": ["dpkg"],
    COMPILER: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
}
CPU = "cortex-a76"  # the Raspberry Pi 5's
CORES = 2
# onnxruntime reads these when it is imported and dies of a segmentation fault without them; those
# of the host are of another architecture.
CPUINFO = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 108.00\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm "
    "lrcpc dcpop asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\n"
    "CPU revision\t: 1\n\n"
    for core in range(CORES)
)


class SetupError(RuntimeError):
    """The machine lacks something; the message ends in the remedy."""


@dataclass(frozen=True, slots=True)
class ArmRoot:
    """The unpacked system at `folder`, with the edge's packages at `site`."""

    folder: Path
    site: Path

    def command(self, *arguments: str) -> list[str]:
        """The Arm Python with these arguments, as a command of this machine."""
        python = self.folder / "usr" / "bin" / f"python{PYTHON}"
        return [QEMU, "-cpu", CPU, "-L", str(self.folder), str(python), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the host's but its home; the x86 Python's settings would mislead Arm's."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(Path.home()),
            "PYTHONPATH": str(self.site),
            "ORT_DISABLE_TELEMETRY": "1",
        }


def prepare_root(cache: Path, mirror: str, say: Callable[[str], None]) -> Path:
    """The folder of the Arm system under `cache`, made if it is not there; `SetupError`."""
    root = cache / f"{RELEASE}-arm64"
    ready = root / "splitpoint-ready"
    _programs([QEMU, COMPILER] if ready.exists() else list(PACKAGES), say)
    if ready.exists():
        say(f"reusing the Arm system of {root}")
        return root
    _must_be_root(f"to unpack Debian {RELEASE} into {root}")
    shutil.rmtree(root, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    say(f"unpacking Debian {RELEASE} for arm64 into {root}")
    packages = f"python3,libpython{PYTHON}-stdlib"
    _run(
        [DEBOOTSTRAP, "--arch=arm64", "--foreign", "--variant=minbase", f"--include={packages}",
         RELEASE, str(root), mirror or _mirror()],
        "try again, or name another mirror with --mirror URL",
    )  # fmt: skip
    for package in sorted((root / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)], f"remove {root} and try again")
    cpus = root / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{CORES - 1}\n")
    (root / "proc" / "cpuinfo").write_text(CPUINFO)
    ready.touch()
    return root


def _programs(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Installs what is missing of `PACKAGES`."""
    missing = [each for name in names if shutil.which(name) is None for each in PACKAGES[name]]
    if not missing:
        return
    remedy = f"install {' '.join(missing)} with this system's package manager"
    if shutil.which("apt-get") is None:
        raise SetupError(f"{', '.join(missing)} is missing and there is no apt-get: {remedy}")
    _must_be_root(f"to install {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    _run(["apt-get", "update", "-q"], "check this machine's apt sources")
    _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], remedy)


def _mirror() -> str:
    """The Debian mirror of this machine's own apt sources."""
    remedy = "give one with --mirror URL"
    if shutil.which("apt-get") is None:
        raise SetupError(f"there is no apt-get whose Debian mirror could be used: {remedy}")
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)",
         "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        origin, label, site = line.split(" ", 2)
        if (origin, label) == ("Debian", "Debian"):
            return site
    raise SetupError(f"this machine's apt sources name no Debian mirror: {remedy}")


def _must_be_root(why: str) -> None:
    if os.geteuid() != 0:
        raise SetupError(f"root is needed {why}: run `make test-aarch64` as root once")


def _run(command: list[str], remedy: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise SetupError(f"`{command[0]}` failed ({' / '.join(last)}): {remedy}")
