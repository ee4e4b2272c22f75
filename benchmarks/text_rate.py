"""How many bytes does a text detector's frame take, and what is read then?

A model that marks text runs on drawn pages whose words are known, cut at every boundary, in every
codec and level, beside JPEG and WebP of its input. What the unsplit model marks is the truth of the
mean intersection over union; what was drawn is that of the reading. Lines are cut out of the page
as it was drawn, where the marks say, and read by a second model that is not split: the share of
wrong characters. PP-OCR's models lie in the wheel of rapidocr-onnxruntime 1.4.4:

    python benchmarks/text_rate.py --draw pages
    splitpoint compile ch_PP-OCRv4_det_infer.onnx --out text.split --head mask_probability \
        --input-size 480x640 --resize stretch --channels bgr --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 \
        --calibrate pages
    python benchmarks/text_rate.py --bundle text.split --reader ch_PP-OCRv4_rec_infer.onnx
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from drawn_text import Line, drawn_page
from PIL import Image
from report import Table, write_report
from split_rates import Level, SplitModel, columns, fewest_kb
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.tasks.similarity import mean_iou
from text_reading import Reader, boxes_of, plain, wrong_characters

CALIBRATION_PAGES, FIRST_SEED = 100, 10_000  # seeds of what is judged begin behind calibration's
LEAST_IOU, MORE_WRONG = 0.99, 0.01  # a point below the unsplit model, in likeness and in reading


def share_wrong(reader: Reader, maps: list[Array], pages: list[tuple[Array, list[Line]]]) -> float:
    """Of the characters of all pages."""
    wrong = total = 0
    for number, (text_map, (pixels, lines)) in enumerate(zip(maps, pages, strict=True)):
        read = [(box, reader.read(number, pixels, box)) for box in boxes_of(text_map)]
        wrong += wrong_characters(lines, read)
        total += sum(len(plain(line.text)) for line in lines)
    return wrong / total


def judged(
    levels: list[Level], truth: list[Array], reader: Reader, pages: list[tuple[Array, list[Line]]]
) -> tuple[Table, dict[str, Any]]:
    exact, rows = share_wrong(reader, truth, pages), []
    iou, wrong = dict[int, float](), dict[int, float]()
    for level in levels:
        iou[id(level)] = mean_iou(level.answers, truth).value
        wrong[id(level)] = share_wrong(reader, level.answers, pages)
        rows.append(level.cells(f"{iou[id(level)]:.3f}", f"{100 * wrong[id(level)]:.1f} %"))
    summary = {
        "pages": len(pages),
        "characters": sum(len(plain(line.text)) for _, lines in pages for line in lines),
        "wrong with the unsplit model": f"{100 * exact:.1f} %",
        "fewest kB at 1 point of IoU": fewest_kb(levels, lambda x: iou[id(x)] >= LEAST_IOU),
        "fewest kB at 1 point more of wrong characters": fewest_kb(
            levels, lambda x: wrong[id(x)] <= exact + MORE_WRONG
        ),
    }
    return Table(columns("IoU", "wrong characters"), rows), summary


def draw(folder: Path) -> None:
    """Pages to calibrate with."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(CALIBRATION_PAGES):
        Image.fromarray(drawn_page(seed)[0]).save(folder / f"{seed:03}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=Path, help="only write pages to calibrate with, there")
    parser.add_argument("--bundle", type=Path, help="a calibrated model that marks text")
    parser.add_argument("--reader", type=Path, help="an ONNX file that reads a line")
    parser.add_argument("--pages", type=int, default=24)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        if options.quick:
            from quick_text import marking_bundle, reading_model

            options.bundle, options.reader = marking_bundle(Path(name)), reading_model(Path(name))
            options.pages = 2
        model, reader = SplitModel(open_bundle(options.bundle)), Reader(options.reader)
        pages = [drawn_page(FIRST_SEED + number) for number in range(options.pages)]
        picture = model.manifest.picture
        assert picture is not None
        pixels = [picture.pixels_of(Image.fromarray(page)) for page, _ in pages]
        truth = [model.answer(page) for page in pixels]
        levels = model.measured(pixels)
        table, summary = judged(levels, truth, reader, pages)
    question = str(__doc__).splitlines()[0]
    write_report("text_rate", question, table, summary, save=not options.quick)


if __name__ == "__main__":
    main()
