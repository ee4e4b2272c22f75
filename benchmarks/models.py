"""Does every model compile quickly, and does every split of it answer as the unsplit model does?

For each model: seconds to compile, and at every materialised boundary, for a batch of 1 and of 3,
the edge's onnxruntime segments, the wire (codec raw) over a real socket, and the worker's torch
segments, against the unsplit torch model. The error is relative to the output's largest magnitude.

    python benchmarks/models.py [MODEL ...] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.models.find import load_model
from zoo_check import TOLERANCE, sensitivity, worst_error
from zoo_subject import Given, settle_batch_norms

MODELS = [
    *(
        f"torchvision:{name}"
        for name in (
            "alexnet", "vgg16", "resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0",
            "inception_v3", "googlenet", "densenet121", "vit_b_16", "convnext_tiny", "swin_t",
        )
    ),
    "efficientnet-lite0",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="as `splitpoint compile` names them")
    parser.add_argument("--quick", action="store_true", help="a few layers, nothing written")
    args = parser.parse_args()
    chosen = args.models or ([QUICK] if args.quick else MODELS)
    rows: list[list[str]] = []
    summary: dict[str, Any] = {"tolerance": TOLERANCE, "models": {}}
    for name in chosen:
        spec = load_model(name, "none" if name.startswith("torchvision:") else "default")
        if spec.weights == "none":
            settle_batch_norms(spec)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            bundle = compile_model(spec, Path(folder) / "model.split")
            seconds = time.perf_counter() - start
            differ = sensitivity(Given(spec))
            error = asyncio.run(worst_error(bundle, Given(spec), Path(folder) / "cache", (1, 3)))
            megabytes = sum(file.nbytes for file in bundle.manifest.files.values()) / 1e6
        manifest = bundle.manifest
        rows.append(
            [name.removeprefix("torchvision:"), str(len(manifest.layers)),
             str(len(manifest.boundaries)), f"{seconds:.1f}", f"{megabytes:.0f}", f"{error:.1e}",
             f"{differ:.1e}",
             "yes" if error <= TOLERANCE else "NO"]
        )  # fmt: skip
        summary["models"][name] = {
            "compile_s": seconds,
            "max_relative_error": error,
            "two_inputs_differ_by": differ,
        }
        print(" ".join(rows[-1]), flush=True)
    times = [model["compile_s"] for model in summary["models"].values()]
    summary |= {"compile_s_median": statistics.median(times), "compile_s_max": max(times)}
    rows.append(["median", "", "", f"{statistics.median(times):.1f}", "", "", "", ""])
    table = Table(
        ["model", "layers", "boundaries", "compile, s", "bundle, MB", "largest relative error",
         "two inputs differ by", "within 1e-4"],
        rows,
    )  # fmt: skip
    write_report("models", __doc__.splitlines()[0], table, summary, save=not args.quick)
    if any(row[-1] == "NO" for row in rows):
        raise SystemExit("a split model differs from the unsplit one")


if __name__ == "__main__":
    main()
