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

import torch
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.cloud.worker import Worker
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.verify import (
    example_batch,
    flat_tensors,
    relative_error,
    tensors_in_order,
)
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model

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
TOLERANCE = 1e-4


def settle_batch_norms(spec: ModelSpec) -> None:
    """Gives random models the statistics of their own activations.

    With fresh statistics (mean 0, variance 1) the signal of a deep random network dies out, and its
    answer hardly depends on the input.
    """
    norms = [m for m in spec.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over the calls
    with torch.no_grad():
        spec.module.train()(*spec.args)
    spec.module.eval()


def sensitivity(spec: ModelSpec) -> float:
    """How much the answers to two inputs differ, relative to the largest.

    Equality to a model that answers the same to everything would prove nothing.
    """
    answers = []
    with torch.inference_mode():
        for sample in (0, 1):
            args, kwargs = example_batch(spec, [sample])
            answers.append(tensors_in_order(spec.module(*args, **kwargs))[0].numpy())
    return relative_error(answers[0], answers[1])


async def worst_error(bundle: Bundle, spec: ModelSpec, cache: Path) -> float:
    """The largest relative error over all boundaries, batches and outputs."""
    worst = 0.0
    async with Worker([bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        for boundary in bundle.manifest.boundaries:
            async with EdgeAgent(
                worker.address, split=str(boundary.id), codec="raw", cache=cache, budget_ms=60_000
            ) as agent:
                for batch in (1, 3):
                    args, kwargs = example_batch(spec, range(batch))
                    with torch.inference_mode():
                        expected = tensors_in_order(spec.module(*args, **kwargs))
                    names = (s.name for s in bundle.manifest.boundaries[0].tensors)
                    given = zip(names, flat_tensors(args, kwargs), strict=True)
                    result = await agent.infer({name: t.numpy() for name, t in given})
                    local = boundary.id == len(bundle.manifest.segments)
                    assert result.outcome is (Outcome.LOCAL if local else Outcome.ANSWERED), (
                        result.error
                    )
                    for found, tensor in zip(result.outputs.values(), expected, strict=True):
                        worst = max(worst, relative_error(found, tensor.numpy()))
    return worst


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
            differ = sensitivity(spec)
            error = asyncio.run(worst_error(bundle, spec, Path(folder) / "cache"))
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
