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
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from report import Table, write_report
from split_rates import Level, SplitModel, columns, fewest_kb
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.tasks.detections import Detections, detections_of
from splitpoint.partition.tasks.similarity import Similarity, average_precision

TRUE_SCORE = 0.25
LEAST_AP = {"1 point of AP": 0.99, "3 points of AP": 0.97}


def with_something(
    model: SplitModel, images: Sequence[str], most: int, truth: list[Detections]
) -> Iterator[Array]:
    """Photos in which the unsplit model finds something, which goes to `truth`."""
    picture = model.manifest.picture
    assert picture is not None
    for path in (path for folder in images for path in find_pictures(folder)):
        pixels = picture.read(path)
        own = detections_of(model.answer(pixels)).of_score(TRUE_SCORE)
        if len(own):
            truth.append(own)
            yield pixels
        if len(truth) == most:
            return


def judged(levels: list[Level], truth: list[Detections]) -> tuple[Table, dict[str, Any]]:
    likeness: dict[int, Similarity] = {
        id(level): average_precision([detections_of(a) for a in level.answers], truth)
        for level in levels
    }
    rows = []
    for level in levels:
        ap = likeness[id(level)]
        rows.append(level.cells(f"{ap.value:.3f}", f"{ap.low:.3f} to {ap.high:.3f}"))
    summary: dict[str, Any] = {"photos": len(truth), "boxes": sum(map(len, truth))}
    for name, least in LEAST_AP.items():
        summary[f"fewest kB at {name}"] = fewest_kb(
            levels, lambda level, least=least: likeness[id(level)].value >= least  # type: ignore[misc]
        )  # fmt: skip
    return Table(columns("AP", "95 %"), rows), summary


def own_detector(folder: Path) -> tuple[Path, Path]:
    """A detector with random weights and pictures of noise: for `--quick`."""
    from quick_detector import pictures, small_detector
    from splitpoint.partition.compile.compile import compile_model

    compile_model(small_detector(), folder / "quick.split", boundaries=3)
    return folder / "quick.split", pictures(folder / "photos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="a calibrated detector")
    parser.add_argument("--images", nargs="+", help="photos with what it detects: folders")
    parser.add_argument("--most", type=int, default=60, help="photos in which something is found")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        if options.quick:
            options.bundle, images = own_detector(Path(name))
            options.images, options.most = [str(images)], 3
        model, truth = SplitModel(open_bundle(options.bundle)), list[Detections]()
        levels = model.measured(with_something(model, options.images, options.most, truth))
    table, summary = judged(levels, truth)
    question = str(__doc__).splitlines()[0]
    write_report("detect_rate", question, table, summary, save=not options.quick)


if __name__ == "__main__":
    main()
