"""What does a learned codec save at its boundary, on pictures of other sources, too?

A bundle that `splitpoint learn` wrote is judged on folders of pictures: its learned codec beside
`fkt`, JPEG and WebP, on the first folder beside `fkt` at every boundary. Loss is the mean
Kullback-Leibler divergence of the softmax from that of the unsplit model on the uncompressed
picture. Times are those of one thread. With `--int8` the encoder runs in INT8 as well. The first of
the folders is drawn.

    python benchmarks/learned.py [--bundle NAME.split] [--images DIR …] [--int8 DIR]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: times are those of one thread

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import own_photos
from quick_bundle import QUICK, compiled
from rate_accuracy import COLUMNS, Measured, bytes_at, row, say
from report import RESULTS, Table, write_report
from splitpoint.codec import Array
from splitpoint.codec.codec_set import FKT, LEARNED, CodecSet, LearnedParts
from splitpoint.codec.fkt.table import OCTAVE, FktTable
from splitpoint.partition.bundle.bundle import Boundary, Bundle, open_bundle
from splitpoint.partition.bundle.codec_tables import load_levels
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.calibrate.quantise import quantise_segment
from splitpoint.partition.learn.judged import bytes_ratio
from splitpoint.partition.learn.learn import Learning, learn_codec
from splitpoint.partition.progress import tell_nobody
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.latent_networks import OnnxNetworks
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.onnx_segment import OnnxSegment

QUESTION = "What does a learned codec save at its boundary?"
AT_LOSSES = (0.03, 0.05, 0.08, 0.1)  # nats
INT8 = f"{LEARNED}-int8"  # with the encoder in INT8
CPU = torch.device("cpu")
IMAGES = ("jpeg@50", "jpeg@75", "jpeg@85", "jpeg", "jpeg@95",
          "webp@50", "webp@80", "webp", "webp@95")  # fmt: skip


class Int8Encoder:
    """A boundary's networks with the encoder in INT8, its ranges those of some tensors."""

    def __init__(
        self, bundle: Bundle, boundary: Boundary, tensors: Sequence[Array], folder: Path
    ) -> None:
        files = boundary.learned
        assert files is not None
        self.boundary = boundary.id
        self._exact = OnnxNetworks(boundary.id, files, bundle.folder)
        octaves = [int(table.log_step[0]) / OCTAVE for table in tables_of(bundle, boundary)]
        exact = bundle.path(files.encoder.onnx)
        names = OnnxSegment(exact, 1).inputs
        quantise_segment(
            exact, folder / "encoder.onnx",
            (
                dict(zip(names, (tensor, np.full((1, 1), step, np.float32)), strict=True))
                for tensor in tensors for step in octaves
            ),
        )  # fmt: skip
        mine = replace(files, encoder=replace(files.encoder, onnx="encoder.onnx"))
        self._rounded = OnnxNetworks(boundary.id, mine, folder)

    def encoded(self, tensor: Array, octaves: float) -> Array:
        return self._rounded.encoded(tensor, octaves)

    def decoded(self, latent: Array, octaves: float) -> Array:
        return self._exact.decoded(latent, octaves)


def tables_of(bundle: Bundle, boundary: Boundary) -> list[FktTable]:
    assert boundary.learned is not None
    path = bundle.path(boundary.learned.tables)
    return load_levels(path, boundary.tensors[0], boundary.learned.levels)


def measure(
    bundle: Bundle, images: str, int8: str, most: int, folder: Path, *, everywhere: bool
) -> Measured:
    """At all boundaries, or at the learned codec's and the input."""
    manifest = bundle.manifest
    chain = OnnxChain(bundle, threads=1)
    for index in range(len(chain)):
        chain.load(index)
    given = calibration_inputs(manifest, Calibration(source=images)).inputs[:most]
    measured, codecs = Measured(bundle, chain, given, ()), codecs_of(manifest, bundle.folder)
    for boundary in manifest.boundaries[:-1]:
        if boundary.id and not (everywhere or boundary.learned):
            continue
        values = measured.values(boundary, given)
        families = (LEARNED, FKT) if boundary.id else ()
        names = [level.codec for family in families for level in boundary.levels_of(family)]
        for name in names or IMAGES:
            measured.run(boundary, values, name, codecs)
        if boundary.learned is not None and int8:
            some = calibration_inputs(manifest, Calibration(source=int8)).inputs[:40]
            (tensors,) = measured.values(boundary, some).values()
            networks = Int8Encoder(bundle, boundary, tensors, folder)
            parts = LearnedParts(tables=tables_of(bundle, boundary), networks=networks)
            rounded = CodecSet(lambda at: {}, lambda at, parts=parts: parts)  # type: ignore[misc]
            for level in boundary.levels_of(LEARNED):
                measured.run(boundary, values, level.codec, rounded)
                rungs = measured.found[boundary.id]
                name = rungs[-1].codec.replace(LEARNED, INT8)
                rungs[-1] = replace(rungs[-1], codec=name)
        say(f"{images}, boundary {boundary.id}: {len(measured.found[boundary.id])} points")
    return measured


def learned_at(bundle: Bundle) -> Boundary:
    return next(b for b in bundle.manifest.boundaries if b.learned)


def compare(measured: Measured) -> dict[str, Any]:
    """Bytes of the learned codec, `fkt` at its boundary, JPEG and WebP: at the same losses.

    And the learned codec's over those of the others, a mean over all losses that both have.
    """
    at = learned_at(measured.bundle).id
    losses = np.array(AT_LOSSES)
    curves = {
        "learned": measured.curve(at, LEARNED), "fkt": measured.curve(at, FKT),
        "jpeg": measured.curve(0, "jpeg"), "webp": measured.curve(0, "webp"),
    }  # fmt: skip
    found: dict[str, Any] = {
        name: [None if np.isnan(x) else round(float(x)) for x in bytes_at(curve, losses)]
        for name, curve in curves.items()
        if len(curve) > 1
    }
    own = rungs(measured, at, LEARNED)
    for name, boundary in (("fkt", at), ("jpeg", 0), ("webp", 0)):
        ratio = bytes_ratio(own, rungs(measured, boundary, name))
        found[f"learned_over_{name}"] = None if ratio is None else round(ratio, 3)
    return found


def rungs(measured: Measured, boundary: int, family: str) -> list[CodecLevel]:
    levels = measured.found[boundary]
    return [level for level in levels if level.codec.partition("@")[0] == family]


def share(flops: int, bundle: Bundle) -> float:
    total = sum(segment.flops for segment in bundle.manifest.segments)
    return round(100 * flops / total, 2)


def shares(bundle: Bundle) -> dict[str, float]:
    """Percent of the model's operations."""
    boundary = learned_at(bundle)
    assert boundary.learned is not None
    before = sum(s.flops for s in bundle.manifest.segments[: boundary.id])
    return {
        "before_the_boundary": share(before, bundle),
        "encoder": share(boundary.learned.encoder.flops, bundle),
        "decoder": share(boundary.learned.decoder.flops, bundle),
    }


def in_short(summary: dict[str, Any]) -> Table:
    def shown(values: list[float | None] | None) -> str:
        return " / ".join("-" if v is None else f"{v:.0f}" for v in values or [])

    names = ("learned", "fkt", "jpeg", "webp")
    over = ("learned_over_fkt", "learned_over_jpeg", "learned_over_webp")
    return Table(
        ["pictures", *(f"{name}, bytes" for name in names), "over fkt", "over jpeg", "over webp"],
        [
            [source, *(shown(found.get(name)) for name in names),
             *("" if found.get(name) is None else f"{found[name]:.2f}" for name in over)]
            for source, found in summary["sources"].items()
        ],
    )  # fmt: skip


def draw(measured: Measured, source: str, path: Path) -> None:
    """Bytes against loss, both on log axes, a line for each way and boundary."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    bundle, at = measured.bundle, learned_at(measured.bundle).id
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    lines = [(0, "jpeg"), (0, "webp"), *((b, FKT) for b in measured.found if b), (at, LEARNED)]
    for boundary, family in lines:
        curve = sorted(measured.curve(boundary, family), key=lambda point: point[1])
        if len(curve) < 2:
            continue
        before = sum(s.flops for s in bundle.manifest.segments[:boundary])
        shape = "x".join(map(str, bundle.manifest.boundaries[boundary].tensors[0].shape[1:]))
        name = f"{family}, {shape}, behind {share(before, bundle):.0f} % of the compute"
        axes.plot(
            [nbytes / 1e3 for _, nbytes in curve], [loss for loss, _ in curve],
            marker="s" if not boundary else "D" if family == LEARNED else "o", markersize=4,
            linestyle="--" if not boundary else "-", lw=3 if family == LEARNED else 1.4,
            label=name if boundary else family.upper(),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(5e-3, 0.5)
    axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.set_xlabel("kB a frame")
    axes.set_ylabel("loss: mean divergence of the answers, nats")
    axes.set_title(f"{bundle.manifest.name}: bytes against loss, pictures of {source}")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"drawn to {path}")


def quick_one(folder: Path) -> tuple[Path, list[str]]:
    """A small model with a codec of a few steps: what comes of it means nothing."""
    photos = own_photos(folder / "calibrate", 1)
    bundle = compiled(QUICK, folder / "quick.split", "--calibrate", photos)
    crops = folder / "crops"
    crops.mkdir()
    for number, path in enumerate(sorted(Path(photos).iterdir()) * 20):
        (crops / f"{number:03}{path.suffix}").symlink_to(path)
    learning = Learning(images=str(crops), at=1, out=folder / "learned.split", steps=4)
    return learn_codec(bundle, learning, CPU, tell_nobody).bundle.folder, [photos]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="what `splitpoint learn` wrote")
    parser.add_argument("--images", nargs="+", default=[], help="folders, each a source of its own")
    parser.add_argument("--int8", default="", help="photos for the ranges of an INT8 encoder")
    parser.add_argument("--name", default="", help="of the files: learned, or learned-NAME")
    parser.add_argument("--quick", action="store_true", help="a small model, few photos")
    args = parser.parse_args()
    if not args.quick and not (args.bundle and args.images):
        parser.error("give --bundle and --images, or --quick")
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as temporary:
        if args.quick:
            args.bundle, args.images = quick_one(Path(temporary))
        bundle = open_bundle(args.bundle)
        for images in args.images:
            found[Path(images).name] = measure(
                bundle, images, args.int8, 12 if args.quick else 500, Path(temporary),
                everywhere=not found,
            )  # fmt: skip
    rows = [
        [source, *row(bundle.manifest.boundaries[boundary], level)]
        for source, measured in found.items()
        for boundary, levels in measured.found.items()
        for level in levels
    ]
    summary = {
        "model": bundle.manifest.name,
        "boundary": learned_at(bundle).id,
        "percent_of_the_operations": shares(bundle),
        "at_losses": list(AT_LOSSES),
        "sources": {source: compare(measured) for source, measured in found.items()},
    }
    name = "learned" + f"-{args.name}" * bool(args.name)
    table = Table(["pictures", *COLUMNS], rows)
    write_report(name, QUESTION, table, summary, save=not args.quick, in_short=[in_short(summary)])
    if not args.quick:
        source = next(iter(found))
        draw(found[source], source, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
