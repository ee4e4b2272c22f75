"""How much faster is onnxruntime than torch on the device, and what does INT8 add and cost?

Every model is compiled into segments, and each runtime of the edge runs the same ones with one
thread, in turn, on the same input; afterwards the outputs are compared. INT8 is quantised with the
calibration pictures, and its accuracy is measured on other photos beside that of float32: of the
model with real weights alone, as random weights have none.

    python benchmarks/edge_runtime.py [--images DIR] [--calibrate DIR] [--quick]

The right class of the i-th of `--images`, sorted by name, is 5i + 2 (200 photos of ImageNet).
Without photos, crops of scikit-image's are taken, which have no classes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from photos import own_photos
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.codec import Array
from splitpoint.edge.frames.segments import Segments
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.ladder import wilson
from splitpoint.partition.bundle.segment_files import INT8, ONNX, TORCH
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.calibrate.int8_segments import quantise_bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.run.slowdown import Slowdown

MODELS = (
    "efficientnet-lite0",
    "torchvision:mobilenet_v3_large",
    "torchvision:resnet50",
    "torchvision:vgg16",
)
LEAST_RATIO = {"efficientnet-lite0": 1.8, "mobilenet_v3_large": 1.8, "resnet50": 1.3}
THREADS, TOLERANCE = 1, 1e-4
PAUSE_S = 0.05  # frames come with gaps
FEW = 12  # calibration pictures of a model whose answers mean nothing


def with_int8(bundle: Bundle, source: str, most: int | None) -> Bundle:
    """The bundle with INT8 segments beside the others."""
    inputs = calibration_inputs(bundle.manifest, Calibration(source=source)).inputs[:most]
    segments, boundaries = quantise_bundle(bundle, inputs)
    manifest = replace(bundle.manifest, segments=segments, boundaries=boundaries)
    return replace(bundle, manifest=manifest)


def runners(bundle: Bundle) -> dict[str, Segments]:
    """All segments in each runtime, loaded and warm."""
    found = {}
    for runtime in (TORCH, ONNX, INT8):
        chain = open_chain(bundle, runtime, threads=THREADS, providers=("cpu",))
        found[runtime] = Segments(chain, bundle.manifest, Slowdown(1))
        found[runtime].load(len(bundle.manifest.segments))
    return found


def outputs(bundle: Bundle, runner: Segments, given: Mapping[str, Array]) -> Array:
    """The first output, from all segments."""
    values = runner.run(given, len(bundle.manifest.segments))
    return values[next(iter(bundle.manifest.outputs.values()))]


def times_ms(
    bundle: Bundle, every: Mapping[str, Segments], given: Mapping[str, Array], rounds: int
) -> dict[str, float]:
    """Median of each runtime, which take turns."""
    times: dict[str, list[float]] = {runtime: [] for runtime in every}
    for _ in range(rounds + 1):
        for runtime, runner in every.items():
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            outputs(bundle, runner, given)
            times[runtime].append(1e3 * (time.perf_counter() - start))
    return {runtime: statistics.median(found[1:]) for runtime, found in times.items()}


def accuracy(
    bundle: Bundle, every: Mapping[str, Segments], photos: Sequence[Mapping[str, Array]]
) -> dict[str, float | list[float]]:
    """Shares of right answers of float32 and INT8, and of answers that INT8 changes."""
    top = {
        runtime: np.array([outputs(bundle, every[runtime], photo).argmax() for photo in photos])
        for runtime in (ONNX, INT8)
    }
    right = 5 * np.arange(len(photos)) + 2
    changed = int((top[ONNX] != top[INT8]).sum())
    return {
        "photos": len(photos),
        "float32": float((top[ONNX] == right).mean()),
        "int8": float((top[INT8] == right).mean()),
        "changed": changed / len(photos),
        "changed_interval": list(wilson(changed, len(photos))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="", help="photos with known classes")
    parser.add_argument("--calibrate", default="", help="a folder of other photos")
    parser.add_argument("--quick", action="store_true", help="the smallest model alone")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows, summary = [], {}
    for source in [QUICK] if args.quick else MODELS:
        name = source.rpartition(":")[2]
        real = name == source
        with tempfile.TemporaryDirectory() as folder:
            calibrate = args.calibrate or own_photos(Path(folder) / "calibrate", 0)
            spec = load_model(source, "default" if real else "none")
            compiled = compile_model(spec, Path(folder) / "m.split")
            bundle = with_int8(compiled, calibrate, None if real else FEW)
            every = runners(bundle)
            images = args.images or own_photos(Path(folder) / "images", 1)
            photos = calibration_inputs(bundle.manifest, Calibration(source=images)).inputs
            ms = times_ms(bundle, every, photos[0], 5 if args.quick else 40)
            expected = outputs(bundle, every[TORCH], photos[0])
            found = outputs(bundle, every[ONNX], photos[0])
            error = float(np.abs(found - expected).max() / np.abs(expected).max())
            assert error < TOLERANCE, f"{name}: onnxruntime and torch differ by {error:.1e}"
            judged = accuracy(bundle, every, photos) if real and args.images else {}
            mb = {
                runtime: sum(
                    bundle.path(path).stat().st_size
                    for segment in bundle.manifest.segments
                    for path in paths(segment)
                )
                / 1e6
                for runtime, paths in (
                    (ONNX, lambda segment: (segment.onnx, segment.weights)),
                    (INT8, lambda segment: (segment.int8,)),
                )
            }
        ratio = ms[TORCH] / ms[ONNX]
        least = LEAST_RATIO.get(name)
        summary[name] = {
            "ms": ms,
            "torch_over_onnxruntime": ratio,
            "at_least": least,
            "met": least is None or ratio >= least,
            "onnxruntime_over_int8": ms[ONNX] / ms[INT8],
            "relative_error": error,
            "download_mb": mb,
            "accuracy": judged,
        }
        rows.append(
            [
                name,
                f"{ms[TORCH]:.1f}",
                f"{ms[ONNX]:.1f}",
                f"{ratio:.2f}x",
                f"{error:.0e}",
                f"{ms[INT8]:.1f}",
                f"{ms[ONNX] / ms[INT8]:.2f}x",
                f"{mb[ONNX]:.0f} / {mb[INT8]:.0f}",
                _accuracy_words(judged, real),
            ]
        )
    columns = ["model", "torch, ms", "onnxruntime, ms", "ratio", "they differ by", "INT8, ms",
               "INT8's ratio", "MB, float32 / INT8", "top-1, float32 / INT8"]  # fmt: skip
    summary["threads"] = THREADS
    write_report(
        "edge_runtime", __doc__.splitlines()[0], Table(columns, rows), summary, save=not args.quick
    )


def _accuracy_words(judged: Mapping[str, float | list[float]], real: bool) -> str:
    if not judged:
        return "no photos with classes" if real else "random weights, not judged"
    return f"{100 * judged['float32']:.1f} % / {100 * judged['int8']:.1f} %"


if __name__ == "__main__":
    main()
