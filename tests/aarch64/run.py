"""`make test-aarch64`: the edge agent as 64-bit Arm code on an x86 machine, compared with x86's.

    run.py [--images DIR] [--bundle X.split] [--photos 20] [--cache DIR] [--mirror URL]

An emulated Debian with the edge's Arm wheels runs the real `splitpoint run` against a worker of
this machine. The cache outside the repository keeps the system and the wheels. The seconds are
those of an emulator, and say nothing about Arm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from arm_root import PYTHON, ArmRoot, SetupError, prepare_root
from compare import outputs_differ, payloads_differ, tensors_differ
from compare_loops import differing, made, payloads
from cross import compile_extension
from splitpoint.cli.commands.demo import Process
from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from wheels import ROOT, PipError, base_dependencies, for_arm, pip, pyproject, resolve

OTHERS = {"3.10": "JetPack 6", "3.13": "Raspberry Pi OS 13"}  # Pythons whose wheels are only found
MAX_DIFFERENCE = 1e-3  # of an output's largest magnitude
MAIN = "from splitpoint.cli.main import main; main()"


def say(line: str) -> None:
    print(line, flush=True)


def own_photos(folder: Path, count: int) -> Path:
    """Crops of the demo's photos, each at most a quarter of its photo."""
    import skimage.data
    from PIL import Image
    from splitpoint.cli.commands.demo import PHOTOS

    folder.mkdir()
    base = Path(skimage.data.__file__).parent
    for number in range(count):
        (file,) = base.glob(f"{PHOTOS[number % len(PHOTOS)]}.*")
        place = number // len(PHOTOS)
        with Image.open(file) as photo:
            width, height = photo.width // 2, photo.height // 2
            left, top = (place % 2) * width, (place // 2 % 2) * height
            crop = photo.convert("RGB").crop((left, top, left + width, top + height))
            crop.save(folder / f"{number:02}-{file.stem}.png")
    return folder


def some_of(images: Path, folder: Path, count: int) -> Path:
    """A folder of the first `count` pictures."""
    folder.mkdir()
    for path in find_pictures(str(images))[:count]:
        shutil.copy(path, folder)
    return folder


def install_edge(cache: Path) -> Path:
    """The folder with the edge's Arm wheels and this repository's rooms."""
    wheels, site = cache / "wheels", cache / "site"
    shutil.rmtree(site, ignore_errors=True)
    wheels.mkdir(parents=True, exist_ok=True)
    say(f"resolving the edge's wheels for aarch64 and Python {PYTHON}")
    # What a device would be given today; wheels that are here already are not loaded again.
    shutil.rmtree(cache / "wheels-new", ignore_errors=True)
    pip("download", "--quiet", "--dest", str(cache / "wheels-new"), "--find-links", str(wheels),
        *for_arm(PYTHON), *base_dependencies(PYTHON))  # fmt: skip
    shutil.rmtree(wheels)
    (cache / "wheels-new").rename(wheels)
    files = sorted(wheels.iterdir())
    for file in files:
        say(f"  {file.stat().st_size / 1e6:6.2f} MB  {file.name}")
    total = sum(file.stat().st_size for file in files)
    say(f"{len(files)} wheels, {total / 1e6:.1f} MB to download")
    for python, system in OTHERS.items():
        found = resolve(base_dependencies(python), python)
        say(f"Python {python} ({system}): {len(found)} wheels")
    pip("install", "--quiet", "--no-index", "--find-links", str(wheels), "--target", str(site),
        *for_arm(PYTHON), *base_dependencies(PYTHON))  # fmt: skip
    tool = pyproject()["tool"]
    assert isinstance(tool, dict)
    for package, folder in tool["setuptools"]["package-dir"].items():
        shutil.copytree(
            ROOT / folder, site / Path(*package.split(".")),
            ignore=shutil.ignore_patterns("__pycache__", "*.so"),
        )  # fmt: skip
    library = compile_extension(site)
    say(f"{library.name}, cross-compiled: {library.stat().st_size / 1e3:.0f} kB")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    say(f"{size / 1e6:.0f} MB when installed")
    return site


def run(
    command: Sequence[str], what: str, environment: dict[str, str] | None = None
) -> tuple[str, float]:
    """Its standard output, and the seconds it took; `SetupError` if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise SetupError(
            f"{what} ended with {done.returncode}: {' / '.join(done.stderr.splitlines()[-4:])}"
        )
    return done.stdout, time.perf_counter() - start


def run_agent(
    python: Sequence[str], environment: dict[str, str] | None, arguments: Sequence[str], what: str
) -> list[str]:
    """The frames' outcomes of one `splitpoint run`, each with its boundary and codec."""
    command = [*python, "-c", MAIN, "run", "--json", "--no-finish-locally", *arguments]
    out, seconds = run(command, f"the agent ({what})", environment)
    lines = [json.loads(line) for line in out.splitlines()]
    frames = [line for line in lines if "summary" not in line]
    for line in frames:
        if line["outcome"] not in ("answered", "local"):
            raise SetupError(f"frame {line['id']} ({what}) was {line['outcome']}: {line['error']}")
    say(f"  {what}: {len(frames)} frames, {lines[-1]['summary']['bytes_up']} bytes up, "
        f"{seconds:.0f} s")  # fmt: skip
    return [f"{line['outcome']}, boundary {line['split']}, {line['codec']}" for line in frames]


def compare_agents(bundle: Bundle, photos: Path, arm: ArmRoot, folder: Path) -> bool:
    """The real command on both, at three splits, with one worker."""
    last = len(bundle.manifest.segments)
    middle = bundle.manifest.boundaries[last // 2]
    codec = "fkt" if middle.ladder and middle.tables else "q8"
    good = True
    with Process("serve", str(bundle.folder), "--listen", "127.0.0.1:0") as worker:
        for split, with_codec in (("input", "jpeg"), (str(middle.id), codec), ("local", "")):
            say(f"split {split} {with_codec}")
            saved, outcomes = {}, {}
            for machine, python, environment in (
                ("x86", [sys.executable], None),
                ("arm", arm.command(), arm.environment),
            ):
                saved[machine] = folder / f"outputs-{machine}-{split}"
                arguments = [
                    "--server", worker.address, "--source", str(photos), "--split", split,
                    "--cache", str(folder / f"cache-{machine}"), "--budget-ms", "600000",
                    "--in-flight", "1", "--save-outputs", str(saved[machine]),
                ]  # fmt: skip
                arguments += ["--codec", with_codec] if with_codec else []
                outcomes[machine] = run_agent(python, environment, arguments, machine)
            count, worst, same = outputs_differ(saved["x86"], saved["arm"])
            fine = worst <= MAX_DIFFERENCE and outcomes["x86"] == outcomes["arm"] and count > 0
            good &= fine
            say(f"  {'ok' if fine else 'FAILED'}: {outcomes['arm'][0]}: outputs differ by at most "
                f"{worst:.1e} of the largest, same best class {same}/{count}")  # fmt: skip
    return good


def compare_payloads(bundle: Bundle, photos: Path, arm: ArmRoot, folder: Path) -> bool:
    """Each codec on the same tensors, and on those that each machine computed."""
    script = str(Path(__file__).with_name("payloads.py"))
    ours, arms = folder / "x86.npz", folder / "arm.npz"
    say("activations and payloads of every boundary and codec on x86")
    run([sys.executable, script, str(bundle.folder), str(photos), str(ours)], "x86's payloads")
    say("the same on emulated Arm, and from x86's tensors; this takes half a minute a photo")
    run(
        arm.command(script, str(bundle.folder), str(photos), str(arms), str(ours)),
        "Arm's payloads", arm.environment,
    )  # fmt: skip
    mine, theirs = dict(np.load(ours)), dict(np.load(arms))
    tensors = tensors_differ(mine, theirs)
    say("tensors, by how much of their largest value Arm's differ from x86's:")
    say("  " + "  ".join(f"boundary {b}: {worst:.1e}" for b, worst in sorted(tensors.items())))
    say("payloads that differ from x86's, of the same tensors and of each machine's own:")
    say("  codec     payloads  same tensors  own tensors  coefficients  margin  decoded   loss")
    good = True
    for name, row in payloads_differ(bundle, mine, theirs).items():
        why = (
            f"{row.coefficients:12}  {row.margin:6.0e}  {row.decoded:7.1e}  {row.error_ratio:.4f}x"
            if row.given_differ else ""
        )  # fmt: skip
        say(f"  {name:9} {row.given:8}  {row.given_differ:12}  {row.own_differ:11}  {why}".rstrip())
        good &= row.unexplained == 0
    say("  coefficients: how many differ in all, each at most `margin` steps from where rounding")
    say("  turns; decoded and loss: of Arm's payloads, decoded on x86, against x86's own")
    if not good:
        say("  FAILED: some differ for another reason")
    return good


def compare_loops(arm: ArmRoot, folder: Path) -> bool:
    """The codecs' inner loops, in numpy and in C, on both machines, from the same coefficients."""
    script, given = str(Path(__file__).with_name("loops.py")), folder / "made.npz"
    np.savez(given, **made())
    found = {}
    for machine, python, environment in (
        ("x86", [sys.executable], None), ("arm", arm.command(), arm.environment),
    ):  # fmt: skip
        out = folder / f"loops-{machine}.npz"
        run([*python, script, str(given), str(out)], f"the loops on {machine}", environment)
        found[machine] = dict(np.load(out))
    say(f"the codecs' loops: {payloads(found['x86'])} payloads and what is decoded of them, "
        "against numpy's on x86")  # fmt: skip
    good = True
    for (machine, form), names in differing(found).items():
        good &= not names
        say(f"  {form} on {machine}: " + (f"FAILED: {len(names)} arrays differ, such as {names[0]}"
            if names else "the same bits"))  # fmt: skip
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--cache", type=Path, default=cache / "splitpoint-aarch64")
    parser.add_argument("--mirror", default="", help="Debian's, if not that of the apt sources")
    parser.add_argument("--images", type=Path, help="photos to use instead of the demo's")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--bundle", type=Path, help="a calibrated one also exercises fkt")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        root = prepare_root(options.cache, options.mirror, say)
        arm = ArmRoot(root, install_edge(options.cache))
        facts = "import platform as p; print(p.machine(), p.python_version(), *p.libc_ver())"
        say("the emulated machine: " + run(arm.command("-c", facts), "Arm's Python")[0].strip())
        with tempfile.TemporaryDirectory(prefix="splitpoint-aarch64-") as name:
            folder = Path(name)
            photos = folder / "photos"
            if options.images is None:
                own_photos(photos, options.photos)
            else:
                some_of(options.images, photos, options.photos)
            found = options.bundle
            if found is None:
                found = folder / "lite0.split"
                say("compiling efficientnet-lite0, not calibrated: --bundle gives another")
                compile_ = ["compile", "efficientnet-lite0", "--out", str(found)]
                run([sys.executable, "-c", MAIN, *compile_], "compile")
            bundle = open_bundle(found)
            good = compare_loops(arm, folder)
            good &= compare_agents(bundle, photos, arm, folder)
            good &= compare_payloads(bundle, photos, arm, folder)
    except (SetupError, PipError, SplitpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"{'passed' if good else 'FAILED'} in {time.perf_counter() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
