"""Computes a bundle's activations and encodes them; run by the x86 and by the Arm Python.

    payloads.py BUNDLE PICTURES OUT.npz [GIVEN.npz]

OUT has an array for each `tensor/PICTURE/BOUNDARY/NAME` that this machine computed, and for most
codecs the payload of that, `own/PICTURE/BOUNDARY/NAME/CODEC`. With GIVEN, what another machine
wrote, it also has the payloads of that machine's tensors, `given/...`. What a picture decodes and
resizes to is `tensor/PICTURE/0/...`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, codec_of_tensor
from splitpoint.codec.codec_set import FKT, level_of
from splitpoint.partition.bundle.bundle import Boundary, Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_segment import OnnxSegment


def codecs_to_try(boundary: Boundary) -> list[str]:
    """Without `raw`, which is the tensor, and with every third level: emulated, each takes long."""
    levels = {name: level_of(name) for name in boundary.codecs if name.startswith(FKT)}
    return [
        name for name in boundary.codecs if name != "raw" and levels.get(name, 2) % 3 == 2
    ]  # fmt: skip


def payloads_of(
    bundle: Bundle, pictures: Path, given: Mapping[str, Array] | None
) -> dict[str, Array]:
    """All arrays of OUT."""
    manifest, codecs = bundle.manifest, codecs_of(bundle.manifest, bundle.folder)
    segments = [OnnxSegment(bundle.folder / segment.onnx) for segment in manifest.segments]
    assert manifest.picture is not None
    pixels = manifest.boundaries[0].tensors[0].name
    found: dict[str, Array] = {}
    for index, path in enumerate(find_pictures(str(pictures))):
        values: dict[str, Array] = {pixels: manifest.picture.read(path)[np.newaxis]}
        for segment in segments:
            values.update(segment(values))
        for boundary in manifest.boundaries:
            for spec in boundary.tensors:
                place = f"{index}/{boundary.id}/{spec.name}"
                found[f"tensor/{place}"] = values[spec.name]
                if boundary is manifest.boundaries[-1]:
                    continue
                for name in codecs_to_try(boundary):
                    codec = codec_of_tensor(codecs.named(name, boundary.id), spec)
                    tensors = {"own": values[spec.name]}
                    if given is not None:
                        tensors["given"] = given[f"tensor/{place}"]
                    for kind, tensor in tensors.items():
                        payload = np.frombuffer(codec.encode(tensor, spec), np.uint8)
                        found[f"{kind}/{place}/{name}"] = payload
        print(f"[{index + 1}] {path.name}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    bundle, pictures, out, *given = map(Path, sys.argv[1:])
    arrays = dict(np.load(given[0])) if given else None
    np.savez(out, **payloads_of(open_bundle(bundle), pictures, arrays))


if __name__ == "__main__":
    main()
