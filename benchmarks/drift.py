"""When does the agent say that its camera has left the calibration, and is it silent otherwise?

Photos in many random orders, as they are and changed as cameras change; photos of other
collections; and each photo as a camera that does not move, which is one picture however long it
lasts, as one that turns from the left to the right, which is one place, and in turns with the next
photo, as of two such cameras. Counted is the frame at which the warning comes. Beside it stands
what bytes tell: payloads of `fkt@4`, over what calibration measured, are the rival, as they cost
nothing to look at.

    python benchmarks/drift.py --bundle NAME.split --images DIR [--others DIR ...]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from photos import own_photos
from PIL import Image, ImageFilter
from quick_bundle import compiled
from report import Table, write_report
from splitpoint.codec import Array
from splitpoint.edge.figures.drift import FEWEST, WINDOW, Drift
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.input_files import find_inputs
from splitpoint.partition.bundle.samples import evenly
from splitpoint.partition.look import UsualLook, look_of, what_stands_out
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from thin_model import THIN

QUESTION = "When does the agent say that its camera has left the calibration?"
CODEC = "fkt@4"
FRAMES, SCENE_FRAMES, BYTES_PHOTOS = 200, 60, 40
COLUMNS = [
    "pictures", "orders", "warned within 50 frames", "within 200", "first, median", "distance",
    "in words", "still scenes that warned", "turning ones", "two in turns",
    "bytes over calibrated",
]  # fmt: skip


def as_it_is(pixels: Array) -> Array:
    return pixels


def negative(pixels: Array) -> Array:
    return 255 - pixels


def at_night(pixels: Array) -> Array:
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 3, pixels.shape)
    return np.clip(pixels * 0.12 + noise, 0, 255).astype(np.uint8)


def at_dusk(pixels: Array) -> Array:
    return (pixels * 0.25).astype(np.uint8)


def blurred(pixels: Array) -> Array:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3)))


def noisy(pixels: Array) -> Array:
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 25, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def grey(pixels: Array) -> Array:
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


CHANGES: Sequence[Callable[[Array], Array]] = (
    as_it_is, negative, at_night, at_dusk, blurred, noisy, grey,
)  # fmt: skip


def turned(pixels: Array) -> list[Array]:
    """Views of half the width, from the left to the right."""
    half = pixels.shape[1] // 2
    lefts = np.linspace(0, half, SCENE_FRAMES).astype(int)
    return [pixels[:, left : left + half] for left in lefts]


def photos(bundle: Bundle, folder: str, most: int) -> list[Array]:
    picture = bundle.manifest.picture
    assert picture is not None
    return [picture.read(path) for path in evenly(find_inputs(folder, picture), most)]


def first_warning(usual: UsualLook, frames: Sequence[Array]) -> int | None:
    """The number of the frame, from 1 on; None for silence."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("splitpoint.edge")
    log.addHandler(handler)
    try:
        drift = Drift("bundle", usual, clock=lambda: 0.0)
        for number, pixels in enumerate(frames, start=1):
            drift.see(pixels[None])
            if said:
                return number
        return None
    finally:
        log.removeHandler(handler)


def row(bundle: Bundle, name: str, shown: Sequence[Array], orders: int) -> list[str]:
    usual = bundle.manifest.usual_look
    assert usual is not None, "calibrate the bundle again: it does not know how pictures looked"
    chance, found = np.random.default_rng(0), []
    for _ in range(orders):
        order = chance.permutation(len(shown))[:FRAMES]
        found.append(first_warning(usual, [shown[i] for i in order]))
    within = [sum(n is not None and n <= most for n in found) for most in (50, FRAMES)]
    first = sorted(n for n in found if n is not None)
    still = sum(first_warning(usual, [pixels] * SCENE_FRAMES) is not None for pixels in shown)
    turning = sum(first_warning(usual, turned(pixels)) is not None for pixels in shown)
    nexts = [*shown[1:], shown[0]]
    turns = sum(
        first_warning(usual, list(pair) * (SCENE_FRAMES // 2)) is not None
        for pair in zip(shown, nexts, strict=True)
    )
    away = np.stack([usual.in_deviations(look_of(pixels)) for pixels in shown])
    mean = away.mean(0)
    return [
        name, str(orders), f"{within[0]}", f"{within[1]}",
        str(first[len(first) // 2]) if first else "-",
        f"{(mean**2).mean():.2f}", what_stands_out(mean) if first else "",
        f"{still} of {len(shown)}", f"{turning} of {len(shown)}", f"{turns} of {len(shown)}",
        f"{bytes_over_calibrated(bundle, shown):.2f}",
    ]  # fmt: skip


def bytes_over_calibrated(bundle: Bundle, shown: Sequence[Array]) -> float:
    """Mean payload of `fkt@4` at the first boundary that has it, over what calibration measured."""
    chain, manifest = OnnxChain(bundle), bundle.manifest
    boundary = next(b for b in manifest.boundaries if b.level(CODEC) and len(b.tensors) == 1)
    codec, level = (
        codecs_of(manifest, bundle.folder).named(CODEC, boundary.id),
        boundary.level(CODEC),
    )
    assert level is not None
    (spec,), sizes = boundary.tensors, []
    for index in range(boundary.id):
        chain.load(index)
    for pixels in evenly(list(shown), BYTES_PHOTOS):
        state = chain.place({manifest.boundaries[0].tensors[0].name: pixels[None]})
        for index in range(boundary.id):
            state = dict(state) | dict(chain.step(index, state))
        sizes.append(len(codec.encode(chain.fetch(state[spec.name]), spec)))
    return float(np.mean(sizes)) / level.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="calibrated on other photos")
    parser.add_argument("--images", help="photos like those of calibration")
    parser.add_argument("--others", nargs="*", default=[], help="other collections of photos")
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.quick:
            calibration = own_photos(folder / "calibration", 0)
            options.bundle = compiled(THIN, folder / "thin.split", "--calibrate", calibration)
            options.images, options.orders = own_photos(folder / "photos", 1), 3
        bundle = open_bundle(options.bundle)
        own = photos(bundle, options.images, FRAMES)
        rows = [
            row(bundle, change.__name__.replace("_", " "), list(map(change, own)), options.orders)
            for change in CHANGES
        ]
        for other in options.others:
            shown = photos(bundle, other, FRAMES)
            rows.append(row(bundle, f"photos of {Path(other).name}", shown, options.orders))
    summary = {"window": WINDOW, "fewest": FEWEST, "frames": FRAMES, "photos": len(own)}
    write_report("drift", QUESTION, Table(COLUMNS, rows), summary, save=not options.quick)


if __name__ == "__main__":
    main()
