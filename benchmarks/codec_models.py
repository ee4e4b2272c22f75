"""How small and how fast is the transform codec on other models?

ViT-B/16 and ResNet-50 with random weights, whose last layer is scaled so that photos get answers of
their own. Activations are not those of trained models: only sizes, times and errors count here.
Calibrated on ten crops of photos, measured on ten others, one thread. The error is that of
coefficients, in steps of the level; the codec promises at most 2.

    python benchmarks/codec_models.py [--quick]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: times are those of one thread

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from models import settle_batch_norms
from photos import own_photos
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.codec.codec_set import FKT
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.torch_chain import TorchChain

MODELS = ("torchvision:vit_b_16", "torchvision:resnet50")
LEVELS = (2, 5, 8)
BOUNDARIES = 5
SCORES = 2.0  # standard deviation over photos, in nats
COLUMNS = [
    "model", "boundary", "tensor", "level", "float32, bytes", "bytes", "bits/value", "enc ms",
    "dec ms", "largest error, steps",
]  # fmt: skip


def make_decisive(spec: ModelSpec, photos: list[Path]) -> None:
    """Scales the last layer so that the scores of different photos differ by some `SCORES`.

    With fresh weights every input gets next to the same answer, and nothing would be worth a bit.
    """
    assert spec.picture is not None
    last = [m for m in spec.module.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        scores = spec.module(torch.tensor(np.stack([spec.picture.read(path) for path in photos])))
        last.weight.mul_(SCORES / scores.std(0).mean())


def decisive_bundle(name: str, calibration: str, folder: Path) -> Bundle:
    """The model with random weights, compiled and calibrated."""
    spec = load_model(name, "default" if name == QUICK else "none")
    settle_batch_norms(spec)
    make_decisive(spec, find_pictures(calibration))
    start = time.perf_counter()
    bundle = compile_model(
        spec,
        folder / f"{spec.source.rpartition(':')[2]}.split",
        boundaries=BOUNDARIES,
        calibration=Calibration(source=calibration),
    )
    seconds = time.perf_counter() - start
    print(f"{name}: compiled and calibrated in {seconds:.0f} s", file=sys.stderr, flush=True)
    return bundle


def rows_of(name: str, images: str, calibration: str, temporary: Path) -> list[list[str]]:
    bundle = decisive_bundle(name, calibration, temporary)
    manifest = bundle.manifest
    chain = TorchChain(bundle, torch.device("cpu"), threads=1)
    for index in range(len(chain)):
        chain.load(index)
    codecs = codecs_of(manifest, bundle.folder)
    given = calibration_inputs(manifest, Calibration(source=images)).inputs
    states = [chain.place(one) for one in given]
    rows = []
    for boundary in manifest.boundaries[1:-1]:
        for number, state in enumerate(states):
            states[number] = state | chain.step(boundary.id - 1, state)
        for tensor in boundary.tensors:
            for level in LEVELS:
                codec = codecs.named(f"{FKT}@{level}", boundary.id)
                coder = codec.coders[tensor.name]
                nbytes, encode, decode, worst = [], [], [], 0.0
                for state in states:
                    value = chain.fetch(state[tensor.name])
                    begun = time.perf_counter()
                    payload = codec.encode(value, tensor)
                    encoded = time.perf_counter()
                    decoded = codec.decode(payload, tensor, 1)
                    decode.append(time.perf_counter() - encoded)
                    encode.append(encoded - begun)
                    nbytes.append(len(payload))
                    error = (coder.banded(decoded) - coder.banded(value)) / coder.level.step
                    worst = max(worst, float(np.abs(error).max()))
                if not worst <= 2.01:
                    sys.exit(f"{name}, boundary {boundary.id}: off by {worst:.2f} steps")
                mean = statistics.mean(nbytes)
                rows.append(
                    [name.rpartition(":")[2], str(boundary.id), "x".join(map(str, tensor.shape)),
                     str(level), str(tensor.nbytes_at(1)), f"{mean:.0f}",
                     f"{32 * mean / tensor.nbytes_at(1):.3f}",
                     *(f"{1e3 * statistics.median(t):.2f}" for t in (encode, decode)),
                     f"{worst:.2f}"]
                )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small model")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        images = own_photos(temporary / "images", 0)
        calibration = own_photos(temporary / "calibrate", 1)
        for name in [QUICK] if args.quick else MODELS:
            rows += rows_of(name, images, calibration, temporary)
    write_report(
        "codec_models",
        "How small and how fast is the transform codec on other models?",
        Table(COLUMNS, rows),
        {},
        save=not args.quick,
    )


if __name__ == "__main__":
    main()
