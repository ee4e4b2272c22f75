"""How many bytes does a stream's frame take as a difference, against the same frame alone?

Crops move over large photos, as a camera that turns, or stand still, with and without the noise of
a sensor. `fkt-video` and `fkt` code the same activations of EfficientNet-Lite0 at the same level,
and the rest of the model runs on what each of them decodes: agreement is with the model's answer to
the frame itself. The first frame of a scene, a key frame in both, is not counted.

    python benchmarks/video_bytes.py [--images DIR] [--calibrate DIR] [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from photos import own_photos
from PIL import Image
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.codec import Array
from splitpoint.codec.codec_set import FKT, FKT_VIDEO
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.torch_chain import TorchChain

AFTER = ("_blocks.7.add", "_blocks.4.add")
QUICK_AFTER = ("relu#4",)
SIDE_PX, CROP_PX = 300, 224  # a photo's shorter side, and the camera's picture
LEVEL = 5
COLUMNS = [
    "activation", "scene", "alone, bytes", "stream, bytes", "fewer", "alone agrees",
    "stream agrees", "alone, nats", "stream, nats", "key frames",
]  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A camera's motion over a photo, and the noise of its sensor in levels of 255."""

    name: str
    speed_px: int
    noise: float

    def frames(self, photo: Array, count: int) -> Iterator[Array]:
        rng, room = np.random.default_rng(0), photo.shape[1] - CROP_PX
        top = (photo.shape[0] - CROP_PX) // 2
        for number in range(count):
            # To and fro.
            left = room - abs(room - self.speed_px * number % (2 * room)) if room else 0
            crop = photo[top : top + CROP_PX, left : left + CROP_PX].astype(np.float64)
            crop += rng.normal(0, self.noise, crop.shape)
            yield np.clip(np.rint(crop), 0, 255).astype(np.uint8)[None]


SCENES = [
    Scene("still", 0, 0),
    Scene("still, noise of 2 levels", 0, 2),
    Scene("turning, 1 px a frame", 1, 0),
    Scene("turning, 2 px a frame", 2, 0),
    Scene("turning, 4 px a frame", 4, 0),
]


def large(path: Path) -> Array:
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    scale = SIDE_PX / min(photo.size)
    return np.asarray(photo.resize((round(photo.width * scale), round(photo.height * scale))))


@dataclass
class Sums:
    """Over the frames of a scene: of the codec alone, and of the stream."""

    nbytes: Array
    agreed: Array
    loss: Array
    frames: int = 0
    keys: int = 0


def measure(
    bundle: Bundle, chain: TorchChain, boundary: Boundary, scene: Scene, photos: list[Array],
    frames: int,
) -> Sums:  # fmt: skip
    manifest, spec = bundle.manifest, boundary.tensors[0]
    codecs = codecs_of(manifest, bundle.folder)
    pixels, output = manifest.boundaries[0].tensors[0].name, next(iter(manifest.outputs.values()))

    def scores(value: Array) -> Array:
        state = chain.place({spec.name: value})
        for index in range(boundary.id, len(chain)):
            state |= chain.step(index, state)
        return chain.fetch(state[output])[0].astype(np.float64)

    alone = codecs.named(f"{FKT}@{LEVEL}", boundary.id)
    sums = Sums(np.zeros(2), np.zeros(2), np.zeros(2))
    for photo in photos:
        stream = codecs.named(f"{FKT_VIDEO}@{LEVEL}", boundary.id)
        sender, receiver = stream.new_stream(), stream.new_stream()
        for number, frame in enumerate(scene.frames(photo, frames)):
            state = chain.place({pixels: frame})
            for index in range(boundary.id):
                state |= chain.step(index, state)
            value = chain.fetch(state[spec.name])
            payloads = alone.encode(value, spec), sender.encode(value, spec)
            decoded = alone.decode(payloads[0], spec, 1), receiver.decode(payloads[1], spec, 1)
            if not number:
                continue
            true = scores(value)
            p = np.exp(true - np.logaddexp.reduce(true))
            for which, (payload, arrived) in enumerate(zip(payloads, decoded, strict=True)):
                found = scores(arrived)
                log_ratio = np.log(p) - (found - np.logaddexp.reduce(found))
                sums.loss[which] += float(p @ log_ratio)
                sums.agreed[which] += found.argmax() == true.argmax()
                sums.nbytes[which] += len(payload)
            sums.frames += 1
            sums.keys += payloads[1][0] == 0
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="", help="photos that the camera moves over")
    parser.add_argument("--calibrate", default="", help="photos to calibrate with")
    parser.add_argument("--quick", action="store_true", help="one boundary, few frames")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        images = args.images or own_photos(Path(temporary) / "images", 0)
        bundle = compile_model(
            load_model(QUICK if args.quick else "efficientnet-lite0", "default"),
            Path(temporary) / "lite0.split",
            after=QUICK_AFTER if args.quick else AFTER,
            calibration=Calibration(
                source=args.calibrate or own_photos(Path(temporary) / "calibrate", 1)
            ),
        )
        chain = TorchChain(bundle, torch.device("cpu"))
        for index in range(len(chain)):
            chain.load(index)
        pictures = find_pictures(images)
        most, frames = (1, 4) if args.quick else (10, 26)
        photos = [large(path) for path in pictures[:: max(len(pictures) // most, 1)][:most]]
        rows, summary = [], {}
        for boundary in bundle.manifest.boundaries[1:-1]:
            shape = "x".join(map(str, boundary.tensors[0].shape[1:]))
            for scene in SCENES[:: 3 if args.quick else 1]:
                sums = measure(bundle, chain, boundary, scene, photos, frames)
                fewer = 1 - sums.nbytes[1] / sums.nbytes[0]
                summary[f"{shape}, {scene.name}"] = fewer
                each = [array / sums.frames for array in (sums.nbytes, sums.agreed, sums.loss)]
                rows.append(
                    [shape, scene.name, *(f"{n:.0f}" for n in each[0]), f"{100 * fewer:.0f} %",
                     *(f"{n:.3f}" for n in each[1]), *(f"{n:.4f}" for n in each[2]),
                     str(sums.keys)]
                )  # fmt: skip
                print(f"{time.strftime('%H:%M:%S')} {rows[-1]}", file=sys.stderr, flush=True)
    write_report(
        "video_bytes",
        "How many bytes does a stream's frame take as a difference?",
        Table(COLUMNS, rows),
        summary,
        save=not args.quick,
    )


if __name__ == "__main__":
    main()
