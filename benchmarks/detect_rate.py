"""How many bytes does a detector's frame take, and what is found then?

A detector runs on photos in which it finds something, cut at every boundary, in every codec and
level, beside JPEG and WebP of its input through the unsplit model. The truth are the boxes that the
unsplit model finds itself, those that score a quarter or more: average precision at an IoU of 0.5,
with the 95 % interval over the photos. Photos that calibration saw are no good here.

    splitpoint compile centerface.onnx --out face.split --head centerface --input-size 480x640 \
        --resize letterbox --scale 1 --calibrate DIR
    python benchmarks/detect_rate.py --bundle face.split --images OTHER_DIR [--most 60]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from report import Table, write_report
from splitpoint.codec import Array, CodecError, codec_named, codec_of_tensor
from splitpoint.codec.codec_set import CodecSource
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Boundary, Bundle, open_bundle
from splitpoint.partition.bundle.codec_tables import codecs_of
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.tasks.detections import Detections, detections_of
from splitpoint.partition.tasks.similarity import average_precision

TRUE_SCORE = 0.25
PICTURES = ("jpeg@30", "jpeg@50", "jpeg@75", "jpeg@85", "jpeg@92", "jpeg@95", "webp@30", "webp@50",
            "webp@80", "webp@90", "webp@95")  # fmt: skip
PLAIN = ("q8", "q4")
LEAST_AP = 0.99  # a point below the unsplit model
EARLY = 0.25  # of the compute
COLUMNS = ["boundary", "compute", "codec", "kB", "AP", "95 %", "enc ms", "dec ms"]


@dataclass
class Level:
    """One codec at one boundary, over all photos."""

    boundary: Boundary
    codec: str
    found: list[Detections] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)


class Detector:
    """The chain, and what its head makes of its end."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest, self._form = bundle.manifest, AnswerForm.of(bundle.manifest)
        self._chain = OnnxChain(bundle, threads=1)
        for index in range(len(self._chain)):
            self._chain.load(index)

    def boundaries(self, given: Mapping[str, Array]) -> Iterator[tuple[Boundary, dict[str, Array]]]:
        """The tensors that cross each, the outputs last."""
        state: dict[str, Any] = dict(self._chain.place(given))
        for boundary in self.manifest.boundaries:
            fetched = {s.name: self._chain.fetch(state[s.name]) for s in boundary.tensors}
            yield boundary, fetched
            if boundary.id < len(self._chain):
                state |= self._chain.step(boundary.id, state)

    def rest(self, boundary: Boundary, values: Mapping[str, Array]) -> Detections:
        """What is found from there on."""
        state: dict[str, Any] = dict(self._chain.place(values))
        for index in range(boundary.id, len(self._chain)):
            state |= self._chain.step(index, state)
        last = self.manifest.boundaries[-1].tensors
        answer = self._form.made({s.name: self._chain.fetch(state[s.name]) for s in last})
        return detections_of(answer["detections"][0])


def levels_of(boundary: Boundary) -> list[str]:
    if boundary.id == 0:
        return list(PICTURES)
    return [*PLAIN, *(level.codec for level in boundary.ladder if level.codec.startswith("fkt"))]


def add(level: Level, detector: Detector, codecs: CodecSource, values: Mapping[str, Array]) -> None:
    """Encodes, decodes and goes on with one photo."""
    pictures = level.boundary.id == 0
    codec = codec_named(level.codec) if pictures else codecs.named(level.codec, level.boundary.id)
    specs = level.boundary.tensors
    start = time.perf_counter()
    payloads = [codec_of_tensor(codec, s).encode(values[s.name], s) for s in specs]
    encoded = time.perf_counter()
    decoded = {
        s.name: codec_of_tensor(codec, s).decode(payload, s, 1)
        for s, payload in zip(specs, payloads, strict=True)
    }
    level.encode_ms.append(1e3 * (encoded - start))
    level.decode_ms.append(1e3 * (time.perf_counter() - encoded))
    level.nbytes.append(sum(map(len, payloads)))
    level.found.append(detector.rest(level.boundary, decoded))


def measure(bundle: Bundle, images: str, most: int) -> tuple[list[Level], list[Detections]]:
    detector, codecs = Detector(bundle), codecs_of(bundle.manifest, bundle.folder)
    picture = bundle.manifest.picture
    assert picture is not None
    levels = [Level(b, c) for b in bundle.manifest.boundaries[:-1] for c in levels_of(b)]
    truth: list[Detections] = []
    for path in find_pictures(images):
        given = {bundle.manifest.boundaries[0].tensors[0].name: picture.read(path)[np.newaxis]}
        crossing = dict((b.id, values) for b, values in detector.boundaries(given))
        own = detector.rest(bundle.manifest.boundaries[0], given).of_score(TRUE_SCORE)
        if not len(own):
            continue
        truth.append(own)
        for level in levels:
            try:
                add(level, detector, codecs, crossing[level.boundary.id])
            except CodecError as error:
                raise SystemExit(f"{level.codec} at {level.boundary.id}: {error}") from error
        print(f"{len(truth)} photos, {sum(map(len, truth))} boxes", file=sys.stderr, flush=True)
        if len(truth) == most:
            break
    return levels, truth


def judged(bundle: Bundle, levels: list[Level], truth: list[Detections]) -> tuple[Table, Any]:
    flops = [0, *np.cumsum([segment.flops for segment in bundle.manifest.segments])]
    rows, best = [], dict[str, tuple[float, str]]()
    for level in levels:
        at, share = level.boundary.id, flops[level.boundary.id] / flops[-1]
        ap, kb = average_precision(level.found, truth), float(np.mean(level.nbytes)) / 1e3
        rows.append([
            str(at), f"{100 * share:.0f} %", level.codec, f"{kb:.1f}", f"{ap.value:.3f}",
            f"{ap.low:.3f} to {ap.high:.3f}", f"{np.median(level.encode_ms):.1f}",
            f"{np.median(level.decode_ms):.1f}",
        ])  # fmt: skip
        kind = level.codec.partition("@")[0] if at == 0 else "early" if share <= EARLY else "late"
        if ap.value >= LEAST_AP and kb < best.get(kind, (np.inf, ""))[0]:
            best[kind] = kb, f"{level.codec} at boundary {at}"
    summary: dict[str, Any] = {
        "photos": len(truth), "boxes": sum(map(len, truth)),
        "fewest_kb_at_1_point_of_ap": {k: [round(kb, 1), name] for k, (kb, name) in best.items()},
    }  # fmt: skip
    if "jpeg" in best and "early" in best:
        summary["times_fewer_bytes_than_jpeg"] = round(best["jpeg"][0] / best["early"][0], 2)
    return Table(COLUMNS, rows), summary


def own_detector(folder: Path) -> tuple[Path, Path]:
    """A detector with random weights and pictures of noise: for `--quick`."""
    from quick_detector import pictures, small_detector
    from splitpoint.partition.compile.compile import compile_model

    compile_model(small_detector(), folder / "quick.split", boundaries=3)
    return folder / "quick.split", pictures(folder / "photos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="a calibrated detector")
    parser.add_argument("--images", help="photos with what it detects")
    parser.add_argument("--most", type=int, default=60, help="photos in which something is found")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        if options.quick:
            options.bundle, options.images = own_detector(Path(name))
            options.most = 3
        bundle = open_bundle(options.bundle)
        levels, truth = measure(bundle, str(options.images), options.most)
        table, summary = judged(bundle, levels, truth)
    write_report(
        "detect_rate", str(__doc__).splitlines()[0], table, summary, save=not options.quick
    )


if __name__ == "__main__":
    main()
