"""How many bytes does a frame take at equal faithfulness, at every boundary and in every codec?

EfficientNet-Lite0 with its real weights is calibrated on one folder of photos and measured on
another. Loss is the mean Kullback-Leibler divergence of the softmax from that of the unsplit model
on the uncompressed picture: far less noisy than agreement (the same top class), which stands beside
it with its 95 % interval. Times are those of one thread.

Baselines of the same run: JPEG and WebP through the unsplit model, plain quantisation with zstd,
and the transform codec that `fkt` grew out of (prototype_codec.py).

    python benchmarks/rate_accuracy.py [--images DIR] [--calibrate DIR] [--labels FILE] [--quick]

Longer than others: it carries its baselines.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: times are those of one thread

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import own_photos
from prototype_codec import Fixed, Prototype, ThreeBits, basis_of, fisher_of_sampled_labels
from quick_bundle import QUICK
from report import RESULTS, Table, write_report
from splitpoint.codec import Array
from splitpoint.codec.codec_set import FKT
from splitpoint.partition.bundle.bundle import Boundary, Bundle, open_bundle
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.calibrate.judge import Judge
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

QUESTION = "How many bytes does a frame take at equal faithfulness?"
PROTOTYPE, THREE_BITS = "prototype", "3 bit + zstd"
PROTOTYPE_STEPS = (0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)  # of the coefficients' RMS
LOSS_RANGE = (0.013, 0.05)
# 80x14x14, 40x28x28, 112x14x14 and 192x7x7 cross there.
AFTER = ("_blocks.7.add", "_blocks.4.add", "_blocks.10.add", "_blocks.12.add")
QUICK_AFTER = ("relu#4",)
MAX_TENSOR_BYTES = 4 * 24 * 56 * 56  # wider boundaries are no place for a cut
COLUMNS = [
    "boundary", "codec", "bytes", "p95", "bits/value", "loss, nats", "agreement", "95 %", "top-1",
    "enc ms", "dec ms",
]  # fmt: skip

Curve = list[tuple[float, float]]  # loss, bytes


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def bytes_at(curve: Curve, loss: Array) -> Array:
    """Bytes at given losses, between measured points only (log-log); NaN beyond them."""
    points = sorted(curve)
    x, y = np.log([p[0] for p in points]), np.log([p[1] for p in points])
    return np.exp(np.interp(np.log(loss), x, y, left=np.nan, right=np.nan))


def saving(curve: Curve, baseline: Curve) -> float:
    """Mean share of bytes saved against a baseline over `LOSS_RANGE` (after Bjontegaard)."""
    losses = np.geomspace(*LOSS_RANGE, 60)
    ratio = np.log(bytes_at(curve, losses) / bytes_at(baseline, losses))
    return float(1 - np.exp(np.nanmean(ratio)))


class Measured:
    """Everything that was measured, by boundary."""

    def __init__(self, bundle: Bundle, chain: OnnxChain, inputs: Any, labels: Any) -> None:
        self.bundle, self.chain, self.inputs = bundle, chain, inputs
        self.judge = Judge(bundle.manifest, chain, inputs, labels)
        self.found: dict[int, list[CodecLevel]] = {}

    def values(self, boundary: Boundary, inputs: Any) -> dict[str, list[Array]]:
        found: dict[str, list[Array]] = {spec.name: [] for spec in boundary.tensors}
        for given in inputs:
            state = self.chain.place(given)
            for index in range(boundary.id):
                state = dict(state) | dict(self.chain.step(index, state))
            for name, arrays in found.items():
                arrays.append(self.chain.fetch(state[name]))
        return found

    def run(
        self, boundary: Boundary, values: Mapping[str, Sequence[Array]], name: str, source: Any
    ) -> None:
        level = self.judge.level(boundary, name, [source], values)
        if level is not None:
            self.found.setdefault(boundary.id, []).append(level)

    def curve(self, boundary: int, family: str) -> Curve:
        return [
            (level.loss, level.nbytes)
            for level in self.found[boundary]
            if level.codec.partition("@")[0] == family
        ]


def measure(bundle: Bundle, images: Any, calibration: Any, labels: Any, quick: bool) -> Measured:
    manifest = bundle.manifest
    learning = TorchChain(bundle, torch.device("cpu"), threads=1)
    running = OnnxChain(bundle, threads=1)
    for index in range(len(learning)):
        learning.load(index)
        running.load(index)
    measured = Measured(bundle, running, images, labels)
    codecs = codecs_of(manifest, bundle.folder)
    fisher = fisher_of_sampled_labels(manifest, learning, calibration)
    for boundary in manifest.boundaries[:-1]:
        if boundary.nbytes > MAX_TENSOR_BYTES:
            continue
        values = measured.values(boundary, images)
        names = [level.codec for level in boundary.ladder]
        for name in names[:: 3 if quick else 1]:
            measured.run(boundary, values, name, codecs)
        spec = boundary.tensors[0]
        # PPMd takes its time, and wide boundaries are no place for a cut.
        if boundary.id in fisher and spec.shape[2:3] <= (28,):
            measured.run(boundary, values, THREE_BITS, Fixed(ThreeBits()))
            basis = basis_of(measured.values(boundary, calibration)[spec.name], fisher[boundary.id])
            for factor in PROTOTYPE_STEPS[:: 3 if quick else 1]:
                name = f"{PROTOTYPE}@{factor:g}"
                codec = Prototype(name, basis, factor * basis.unit)
                measured.run(boundary, values, name, Fixed(codec))
        say(f"boundary {boundary.id}: {len(measured.found[boundary.id])} points")
    return measured


def row(boundary: Boundary, level: CodecLevel) -> list[str]:
    values = sum(int(np.prod(spec.shape)) for spec in boundary.tensors)
    low, high = level.drop_interval or (0.0, 1.0)
    return [
        str(boundary.id),
        level.codec,
        f"{level.nbytes:.0f}",
        f"{level.p95_bytes:.0f}",
        f"{8 * level.nbytes / values:.3f}",
        f"{level.loss:.4f}",
        f"{1 - (level.drop or 0):.3f}",
        f"{1 - high:.3f} to {1 - low:.3f}",
        "" if level.correct is None else f"{level.correct / level.judged:.3f}",
        f"{level.encode_ms:.2f}",
        f"{level.decode_ms:.2f}",
    ]


def summarise(measured: Measured) -> dict[str, Any]:
    """At each boundary with baselines: what `fkt` saves against them."""
    found: dict[str, Any] = {}
    pictures = {level.codec: level for level in measured.found[0]}
    for boundary, levels in measured.found.items():
        fkt = measured.curve(boundary, FKT)
        plain = {level.codec: level for level in levels}
        if len(fkt) < 2 or THREE_BITS not in plain:
            continue
        shape = "x".join(
            map(str, measured.bundle.manifest.boundaries[boundary].tensors[0].shape[1:])
        )

        def saved(level: CodecLevel, fkt: Curve = fkt) -> float:
            return float(1 - bytes_at(fkt, np.array([level.loss]))[0] / level.nbytes)

        jpeg = pictures.get("jpeg@95")
        entry = {
            "shape": shape,
            "saved_against_prototype": saving(fkt, measured.curve(boundary, PROTOTYPE)),
            "saved_against_4_bit_zstd": saved(plain["q4"]) if "q4" in plain else None,
            "saved_against_3_bit_zstd": saved(plain[THREE_BITS]),
        }
        if jpeg is not None:
            at_jpeg = float(bytes_at(fkt, np.array([jpeg.loss]))[0])
            webp = float(bytes_at(measured.curve(0, "webp"), np.array([jpeg.loss]))[0])
            entry |= {
                "bytes_at_loss_of_jpeg_95": at_jpeg,
                "jpeg_95_times_larger": jpeg.nbytes / at_jpeg,
                "webp_of_equal_loss_times_larger": webp / at_jpeg,
            }
        found[str(boundary)] = entry
    return found


def in_short(summary: dict[str, Any]) -> Table:
    def share(value: float | None) -> str:
        return "" if value is None or np.isnan(value) else f"{100 * value:.0f} %"

    def times(value: float | None) -> str:
        return "" if value is None or np.isnan(value) else f"{value:.1f}x"

    return Table(
        ["boundary", "activation", "fewer bytes than the prototype", "than 4 bit + zstd",
         "than 3 bit + zstd", "than JPEG q95", "than WebP of equal loss"],
        [
            [boundary, entry["shape"], share(entry["saved_against_prototype"]),
             share(entry["saved_against_4_bit_zstd"]), share(entry["saved_against_3_bit_zstd"]),
             times(entry.get("jpeg_95_times_larger")),
             times(entry.get("webp_of_equal_loss_times_larger"))]
            for boundary, entry in summary.items()
        ],
    )  # fmt: skip


def draw(measured: Measured, path: Path) -> None:
    """Bytes on a log axis against agreement, one line a boundary, JPEG and WebP."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    lines = [(0, "jpeg"), (0, "webp"), *((b, FKT) for b in measured.found if b)]
    for boundary, family in lines:
        levels = sorted(
            (x for x in measured.found[boundary] if x.codec.partition("@")[0] == family),
            key=lambda level: level.nbytes,
        )
        levels = [level for level in levels if 1 - (level.drop or 0) >= 0.7]
        if not levels:
            continue
        spec = measured.bundle.manifest.boundaries[boundary].tensors[0]
        name = family.upper() if boundary == 0 else f"fkt, {'x'.join(map(str, spec.shape[1:]))}"
        axes.plot(
            [level.nbytes / 1e3 for level in levels],
            [1 - (level.drop or 0) for level in levels],
            marker="s" if boundary == 0 else "o",
            linestyle="--" if boundary == 0 else "-",
            label=name,
        )
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("kB a frame")
    axes.set_ylabel("agreement with the unsplit model")
    axes.set_title("EfficientNet-Lite0: bytes against faithfulness")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"drawn to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="", help="photos to measure with")
    parser.add_argument("--calibrate", default="", help="photos to calibrate with")
    parser.add_argument("--labels", type=Path, help="FILE CLASS lines for --images")
    parser.add_argument("--bundle", type=Path, help="a calibrated bundle, instead of compiling one")
    parser.add_argument("--quick", action="store_true", help="fewer photos, fewer points")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.images = args.images or own_photos(Path(temporary) / "images", 0)
        args.calibrate = args.calibrate or own_photos(Path(temporary) / "calibrate", 1)
        if args.bundle:
            bundle = open_bundle(args.bundle)
        else:
            spec = load_model(QUICK if args.quick else "efficientnet-lite0", "default")
            start = time.perf_counter()
            bundle = compile_model(
                spec,
                Path(temporary) / "lite0.split",
                after=QUICK_AFTER if args.quick else AFTER,
                calibration=Calibration(source=args.calibrate),
            )
            say(f"compiled and calibrated in {time.perf_counter() - start:.0f} s")
        given = calibration_inputs(
            bundle.manifest, Calibration(source=args.images, labels=args.labels)
        )
        seen = calibration_inputs(bundle.manifest, Calibration(source=args.calibrate))
        most = 24 if args.quick else len(given.inputs)
        measured = measure(
            bundle,
            given.inputs[:most],
            seen.inputs[:most],
            given.labels[:most],
            args.quick,
        )
    rows = [
        row(bundle.manifest.boundaries[boundary], level)
        for boundary, levels in measured.found.items()
        for level in levels
    ]
    summary = summarise(measured)
    write_report(
        "rate_accuracy",
        QUESTION,
        Table(COLUMNS, rows),
        summary,
        save=not args.quick,
        in_short=[in_short(summary)],
    )
    if not args.quick:
        draw(measured, RESULTS / "rate_accuracy.png")


if __name__ == "__main__":
    main()
