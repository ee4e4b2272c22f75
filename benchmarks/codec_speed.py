"""How much faster is the transform codec in C than in numpy?

Both forms in turn on the same activations of photos, at every calibrated boundary of each bundle,
on one thread: CPU milliseconds of a frame (medians). `packed` is the part of decoding that a worker
does on the CPU whatever its GPU; `transform` is the matrix products, which both forms share.
Streams are a photo that drifts by a pixel a frame. `two threads` is their frames a second in those
of one thread, `16 at once` is how much less time a frame of a batch takes than one alone, both in
C. Payloads and tensors are compared after timing.

    python benchmarks/codec_speed.py --bundle NAME.split … [--images DIR] [--models]

`--models` adds ViT-B/16 and ResNet-50 with random weights, compiled as by codec_models.py.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: times are those of one thread

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from codec_models import MODELS, decisive_bundle
from photos import own_photos
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.table import FktTable
from splitpoint.codec.fkt.video import FktVideo
from splitpoint.codec.native import EXTENSION, why_not
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.torch_chain import TorchChain

LEVEL, BATCH = 4, 16
WHAT = ("encode", "decode", "packed", "video encode", "video decode")
COLUMNS = [
    "model", "boundary", "tensor", "bytes", "what", "numpy, ms", "C, ms", "times faster",
    "transform, ms", "two threads", "16 at once",
]  # fmt: skip


Rows = list[list[str]]


@dataclass(frozen=True)
class Forms:
    """The same table with both kinds of loops."""

    numpy: CoefficientCoder
    c: CoefficientCoder

    @classmethod
    def of(cls, table: FktTable, level: int) -> Forms:
        if EXTENSION is None:
            sys.exit(f"there is no extension to compare with: {why_not()}")
        kinds = (NumpyLoops(), NativeLoops(EXTENSION))
        return cls(*(CoefficientCoder(replace(table, loops=loops), level) for loops in kinds))


def cpu_ms(turns: int, *works: Callable[[], object]) -> list[float]:
    """The median CPU time of each, in turn."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(turns + 1):
        for work, own in zip(works, times, strict=True):
            begun = time.thread_time()
            work()
            if turn:  # the first one warms up
                own.append(1e3 * (time.thread_time() - begun))
    return [statistics.median(own) for own in times]


def frames_a_second(work: Callable[[], object], threads: int, seconds: float) -> float:
    """Of so many threads that do the same side by side."""
    ends, counts = time.perf_counter() + seconds, [0] * threads

    def run(index: int) -> None:
        while time.perf_counter() < ends:
            work()
            counts[index] += 1

    others = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    begun = time.perf_counter()
    for other in others:
        other.start()
    for other in others:
        other.join()
    return sum(counts) / (time.perf_counter() - begun)


def intra_rows(head: list[str], forms: Forms, spec: TensorSpec, one: Array, quick: bool) -> Rows:
    reference, fast = (Fkt("fkt", {spec.name: coder}) for coder in (forms.numpy, forms.c))
    many = np.concatenate([one] * BATCH, spec.batch_dim)
    payload, payloads = reference.encode(one, spec), fast.encode(many, spec)
    coefficients, table = fast.packed(payload, spec, 1).coefficients(), forms.c.table
    turns = 3 if quick else 40
    forward, backward = cpu_ms(
        turns, lambda: forms.c.banded(one), lambda: table.unbanded(coefficients)
    )

    def works(codec: Fkt, payload: bytes, array: Array, batch: int) -> list[Callable[[], object]]:
        return [
            lambda: codec.encode(array, spec),
            lambda: codec.decode(payload, spec, batch),
            lambda: codec.packed(payload, spec, batch),
        ]

    found: Rows = []
    for what, transform, slow, quickly, batch in zip(
        ("encode", "decode", "packed"),
        (forward, backward, 0.0),
        works(reference, payload, one, 1),
        works(fast, payload, one, 1),
        works(fast, payloads, many, BATCH),
        strict=True,
    ):
        both = cpu_ms(turns, slow, quickly)
        single, together = cpu_ms(max(turns // 2, 2), quickly, batch)
        found.append([
            *row(head, len(payload), what, both, transform),
            f"{two_threads(quickly, quick):.2f}", f"{single * BATCH / together:.2f}",
        ])  # fmt: skip
    assert fast.encode(one, spec) == payload
    decoded = [codec.decode(payload, spec, 1) for codec in (reference, fast)]
    np.testing.assert_array_equal(*decoded)
    np.testing.assert_array_equal(fast.decode(payloads, spec, BATCH)[:1], decoded[0][:1])
    return found


def two_threads(work: Callable[[], object], quick: bool) -> float:
    """Frames a second of two threads, in those of one."""
    seconds = 0.05 if quick else 1.0
    return statistics.median(
        frames_a_second(work, 2, seconds) / frames_a_second(work, 1, seconds)
        for _ in range(1 if quick else 5)
    )


def video_rows(
    head: list[str], forms: Forms, spec: TensorSpec, stream: list[Array], turns: int
) -> Rows:
    codecs = [FktVideo("fkt-video", {spec.name: coder}) for coder in (forms.numpy, forms.c)]
    times: list[list[list[float]]] = [[[], []] for _ in codecs]
    sizes = []
    for _ in range(turns):
        ends = [(codec.new_stream(), codec.new_stream()) for codec in codecs]
        for number, frame in enumerate(stream):
            made = []
            for (sender, receiver), (encode, decode) in zip(ends, times, strict=True):
                begun = time.thread_time()
                payload = sender.encode(frame, spec)
                between = time.thread_time()
                tensor = receiver.decode(payload, spec, 1)
                if number:  # the first one is a key frame
                    encode.append(1e3 * (between - begun))
                    decode.append(1e3 * (time.thread_time() - between))
                made.append((payload, tensor))
            assert made[0][0] == made[1][0]
            np.testing.assert_array_equal(made[0][1], made[1][1])
            sizes.append(len(made[0][0]))
    mean = round(statistics.mean(sizes))
    return [
        [*row(head, mean, f"video {what}", [statistics.median(own[kind]) for own in times]), "", ""]
        for kind, what in enumerate(("encode", "decode"))
    ]


def row(
    head: list[str], size: int, what: str, ms: list[float], transform: float | None = None
) -> list[str]:
    """Numpy's time and C's."""
    share = "" if transform is None else f"{transform:.3f}"
    return [*head, str(size), what, *(f"{own:.3f}" for own in ms), f"{ms[0] / ms[1]:.1f}", share]


def drifting(bundle: Bundle, images: str, frames: int) -> dict[tuple[int, str], list[Array]]:
    """One photo that moves by a pixel a frame, as it crosses each calibrated boundary."""
    chain = TorchChain(bundle, torch.device("cpu"), threads=1)
    for index in range(len(chain)):
        chain.load(index)
    first = calibration_inputs(bundle.manifest, Calibration(source=images)).inputs[0]
    found: dict[tuple[int, str], list[Array]] = {}
    for frame in range(frames):
        moved = {name: np.roll(value, frame, -2) for name, value in first.items()}
        state = chain.place(moved)
        for boundary in bundle.manifest.boundaries[:-1]:
            if boundary.id:
                state = state | chain.step(boundary.id - 1, state)
            for tensor in boundary.tensors if boundary.tables else ():
                value = chain.fetch(state[tensor.name])
                found.setdefault((boundary.id, tensor.name), []).append(value)
    return found


def measure(name: str, bundle: Bundle, images: str, quick: bool) -> Rows:
    codecs = codecs_of(bundle.manifest, bundle.folder)
    specs = {(b.id, spec.name): spec for b in bundle.manifest.boundaries for spec in b.tensors}
    rows: Rows = []
    for key, stream in drifting(bundle, images, 3 if quick else 8).items():
        spec, table = specs[key], codecs.tables(key[0])[key[1]]
        forms = Forms.of(table, min(LEVEL, table.levels))
        head = [name, str(key[0]), "x".join(map(str, spec.shape))]
        rows += intra_rows(head, forms, spec, stream[0], quick)
        rows += video_rows(head, forms, spec, stream, 1 if quick else 5)
        print(f"{name}, boundary {key[0]}: done", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="append", default=[], help="a calibrated bundle")
    parser.add_argument("--images", help="photos; without it, crops of the demo's")
    parser.add_argument("--models", action="store_true", help="ViT-B/16 and ResNet-50 as well")
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    args = parser.parse_args()
    if not (args.bundle or args.models or args.quick):
        parser.error("name a --bundle, or give --models")
    torch.set_num_threads(1)
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        images = args.images or own_photos(Path(folder) / "images", 0)
        bundles = {Path(path).stem: open_bundle(Path(path)) for path in args.bundle}
        models = (QUICK,) if args.quick else MODELS if args.models else ()
        if models:
            calibration = own_photos(Path(folder) / "calibrate", 1)
            for name in models:
                made = decisive_bundle(name, calibration, Path(folder))
                bundles[name.rpartition(":")[2]] = made
        for name, bundle in bundles.items():
            rows += measure(name, bundle, images, args.quick)
    faster = {what: [float(own[7]) for own in rows if own[4] == what] for what in WHAT}
    summary = {
        "level": LEVEL,
        "times_faster": {
            what: {"least": min(own), "median": statistics.median(own)}
            for what, own in faster.items()
        },
    }
    write_report(
        "codec_speed", __doc__.splitlines()[0], Table(COLUMNS, rows), summary, save=not args.quick
    )


if __name__ == "__main__":
    main()
