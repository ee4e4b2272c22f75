"""Does every network answer on the worker's device as the unsplit one does?

For each network, at each boundary, for batches of 1 and 3: what crosses there in float32 goes
through the rest of the segments on the device, in each number format, operation by operation and
with captured graphs, and is compared with the unsplit torch model in float32 on the CPU. float32
(TF32 off) has to be within 1e-3 of the largest output; another format that is more than 1 % off is
left out, as a worker leaves it out, and one whose graphs are further off than that is wrong.

    python benchmarks/gpu_exactness.py [MODEL ...] [--device cuda] [--bundles DIR] [--seconds 300]
        [--compiled]

With `--compiled` the forms are those of the compilers that are here (`serve --tune-minutes`),
which take minutes a network. What they fail at, or make wrong, is left out, as a worker does it.

What is not checked when the time is up is said, and then it exits with 3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_check import FP32_TOLERANCE, NO, Found, compiled_on_gpu, on_device, truths_of
from models import MODELS
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.cloud.compute.precision import TOLERANCE
from splitpoint.cloud.gpu.compilers_here import compilers_here
from splitpoint.cloud.gpu.device_errors import is_device_lost
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import ModelError
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.torch_chain import pick_device
from zoo_check import ALIVE, sensitivity
from zoo_subject import Given, settle_batch_norms

INCOMPLETE = 3
CACHE = "compiled"  # beside the bundles
COLUMNS = ["model", "boundaries", "computed in", "off by", "with graphs", "from boundary",
           "segments without a graph", "within tolerance"]  # fmt: skip


def given_of(name: str) -> Given:
    """The unsplit model; `ModelError` where its package is not there."""
    spec = load_model(name, "none" if name.startswith("torchvision:") else "default")
    if spec.weights == "none":
        settle_batch_norms(spec)
    return Given(spec)


def bundle_in(folder: Path, name: str, given: Given) -> Bundle:
    """The one that lies there as `resnet18.split`; if there is none it is compiled to there."""
    target = folder / f"{name.removeprefix('torchvision:').replace(':', '-')}.split"
    return open_bundle(target) if target.is_dir() else compile_model(given.spec, target)


def check(
    name: str, folder: Path, device: str, end_s: float, *, compiled: bool
) -> tuple[list[list[str]], dict[str, Any]]:
    """Its rows, and the same for the summary."""
    given = given_of(name)
    bundle = bundle_in(folder, name, given)
    differ = sensitivity(given)
    assert differ > ALIVE, f"{name} answers the same to everything: equality would say nothing"
    truths, chosen = truths_of(bundle, given), pick_device(device)
    found = (
        compiled_on_gpu(bundle, truths, chosen, end_s, folder / CACHE)
        if compiled
        else on_device(bundle, truths, chosen)
    )
    short = name.removeprefix("torchvision:")
    rows = [[short, str(len(bundle.manifest.boundaries)), *_cells(one)] for one in found]
    for row in rows:
        print(" ".join(row), file=sys.stderr, flush=True)
    for one in found:
        for line in (*one.not_captured, *filter(None, [one.failed])):
            print(f"{short}, {one.form}: {line}", file=sys.stderr, flush=True)
    summary = {
        one.form: {
            "eager": list(one.eager), "graphs": list(one.graphs), "verdict": one.verdict,
            "not_captured": list(one.not_captured), "failed": one.failed,
        }
        for one in found
    }  # fmt: skip
    return rows, {"two_inputs_differ_by": differ, "forms": summary}


def _cells(found: Found) -> list[str]:
    if found.failed:
        return [found.form, "it failed", "", "", "", found.verdict]
    worst = max(found.graphs, default=-1.0)
    each = found.graphs if worst > max(found.eager) else found.eager
    return [found.form, f"{max(found.eager):.1e}", f"{worst:.1e}" if found.graphs else "none",
            str(each.index(max(each))), str(len(found.not_captured)), found.verdict]  # fmt: skip


def run(
    models: Sequence[str], folder: Path, device: str, end_s: float, *, compiled: bool
) -> tuple[Table, dict[str, Any], list[str], list[str]]:
    """The table, the summary, what was wrong, and what was not checked."""
    rows: list[list[str]] = []
    found: dict[str, Any] = {}
    wrong: list[str] = []
    left: list[str] = []
    longest_s = 0.0
    for name in models:
        start_s = time.monotonic()
        if start_s + longest_s > end_s:
            print(f"{name}: skipped, there is no time left", file=sys.stderr, flush=True)
            left.append(name)
            continue
        try:
            own, found[name] = check(name, folder, device, end_s, compiled=compiled)
        except ModelError as error:  # its package is not there
            print(f"{name}: skipped: {error}", file=sys.stderr, flush=True)
            left.append(name)
            continue
        except Exception as error:  # noqa: BLE001 - the others are checked all the same
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            wrong.append(name)
            if is_device_lost(error):
                left += models[models.index(name) + 1 :]
                break
            continue
        rows += own
        wrong += [name] * any(row[-1] == NO for row in own)
        forms = found[name]["forms"].values()
        left += [name] * any(form["failed"].startswith("TimeoutError") for form in forms)
        longest_s = max(longest_s, time.monotonic() - start_s)
    summary = {
        "device": device,
        "tolerance": {"fp32": FP32_TOLERANCE, "others": TOLERANCE},
        "wrong": wrong,
        "not_checked": left,
        "models": found,
    }
    return Table(COLUMNS, rows), summary, wrong, left


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="*", help="as `splitpoint compile` names them")
    parser.add_argument("--device", default="auto", help="as of `splitpoint serve`")
    parser.add_argument("--bundles", type=Path, help="compiled already, or to be kept: a folder")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when it is to end")
    parser.add_argument("--compiled", action="store_true", help="what compilers make of them")
    parser.add_argument("--quick", action="store_true", help="a small model, nothing written")
    options = parser.parse_args()
    models = options.models or ([QUICK] if options.quick else MODELS)
    on_cpu = pick_device(options.device).type == "cpu"
    if options.compiled and (on_cpu or not compilers_here(Path(), 1)):
        print("there is no compiler to be checked here", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.bundles or Path(name)
        end_s = time.monotonic() + options.seconds
        table, summary, wrong, left = run(
            models, folder, options.device, end_s, compiled=options.compiled
        )
    title = "gpu_compiled" if options.compiled else "gpu_exactness"
    write_report(title, str(__doc__).splitlines()[0], table, summary,
                 save=not options.quick, device=options.device)  # fmt: skip
    if wrong:
        raise SystemExit(f"not as the unsplit model: {', '.join(wrong)}")
    if left:
        print(f"not checked: {', '.join(left)}", file=sys.stderr)
        raise SystemExit(INCOMPLETE)


if __name__ == "__main__":
    main()
