"""What differs between the same work done by the x86 and by the Arm Python, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, codec_of_tensor
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.learned import Learned
from splitpoint.codec.spec import TensorSpec
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.codecs import codecs_of

# How near to the edge between two quantised values, in steps, a coefficient may be for rounding to
# decide. float32 leaves 1e-5 of a coefficient of a hundred steps.
MARGINS = (1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(slots=True)
class CodecRow:
    """Payloads of one codec over all pictures, boundaries and tensors.

    `given` are payloads of the same tensors, `own` of what each machine computed. Of those of the
    same tensors that differ: `coefficients` differ in all, each at most `margin` steps from where
    the rounding turns, and the decoded tensors by at most `decoded` of their largest value.
    `error_ratio` is the loss of Arm's payload, decoded here, over that of ours, at worst.
    """

    given: int = 0
    given_differ: int = 0
    own_differ: int = 0
    coefficients: int = 0
    margin: float = 0.0
    decoded: float = 0.0
    error_ratio: float = 1.0
    unexplained: int = 0


def relative(found: Array, wanted: Array) -> float:
    """The largest difference, relative to the largest magnitude that was wanted."""
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
    return float(difference / max(np.abs(wanted.astype(np.float64)).max(), 1e-30))


def tensors_differ(ours: Mapping[str, Array], arms: Mapping[str, Array]) -> dict[int, float]:
    """For each boundary, by how much its tensors differ at most, see `relative`."""
    worst: dict[int, float] = defaultdict(float)
    for key, tensor in arms.items():
        if key.startswith("tensor/"):
            boundary = int(key.split("/")[2])
            worst[boundary] = max(worst[boundary], relative(tensor, ours[key]))
    return dict(worst)


def payloads_differ(
    bundle: Bundle, ours: Mapping[str, Array], arms: Mapping[str, Array]
) -> dict[str, CodecRow]:
    """A row a codec. Ours have `own` payloads, Arm's `own` and `given` ones."""
    codecs = codecs_of(bundle.manifest, bundle.folder)
    rows: dict[str, CodecRow] = defaultdict(CodecRow)
    for key, array in arms.items():
        kind, place = key.split("/", 1)
        if kind == "tensor":
            continue
        place, name = place.rsplit("/", 1)
        boundary, tensor = place.split("/", 2)[1:]
        row, payloads = rows[name], (ours[f"own/{place}/{name}"].tobytes(), array.tobytes())
        if kind == "own":
            row.own_differ += payloads[0] != payloads[1]
            continue
        row.given += 1
        if payloads[0] == payloads[1]:
            continue
        row.given_differ += 1
        (spec,) = (s for s in bundle.manifest.boundaries[int(boundary)].tensors if s.name == tensor)
        codec = codec_of_tensor(codecs.named(name, int(boundary)), spec)
        source = ours[f"tensor/{place}"]
        mine, theirs = (codec.decode(payload, spec, 1) for payload in payloads)
        row.decoded = max(row.decoded, relative(theirs, mine))
        losses = [float(np.square(each - source).mean()) for each in (mine, theirs)]
        row.error_ratio = max(row.error_ratio, losses[1] / losses[0])
        _explain(row, codec, spec, source, payloads)
    return dict(rows)


def _explain(
    row: CodecRow, codec: object, spec: TensorSpec, source: Array, payloads: tuple[bytes, bytes]
) -> None:
    """Adds what sets two payloads of the same tensor apart.

    Latents of two machines differ as any outputs of segments do: in the order of float32 sums.
    """
    if isinstance(codec, Learned):
        codec, source = codec.latents, codec.latent(source)
    if not isinstance(codec, Fkt):
        row.unexplained += 1
        return
    coder = codec.coders[spec.name]
    steps = coder.sent(coder.banded(source)[0])
    mine, theirs = (
        codec.coefficients(payload, spec, 1).reshape(-1)[coder.level.order] for payload in payloads
    )
    places = np.flatnonzero(mine != theirs)
    row.coefficients += len(places)
    row.unexplained += not len(places)
    for place in places:
        value, classes = steps[[place]], coder.level.classes[[place]]
        margins = [
            margin for margin in MARGINS
            if coder.quantise(value - np.float32(margin), classes)
            != coder.quantise(value + np.float32(margin), classes)
        ]  # fmt: skip
        row.unexplained += not margins
        row.margin = max(row.margin, *margins[:1], 0.0)


def outputs_differ(ours: Path, arms: Path) -> tuple[int, float, int]:
    """Of two folders of saved outputs: frames, the worst `relative`, and equal best classes."""
    names = sorted(path.name for path in ours.glob("*.npy"))
    if names != sorted(path.name for path in arms.glob("*.npy")):
        raise ValueError(f"{ours} and {arms} hold outputs of different frames")
    worst, same = 0.0, 0
    for name in names:
        wanted, found = np.load(ours / name), np.load(arms / name)
        worst = max(worst, relative(found, wanted))
        same += int(wanted.argmax() == found.argmax())
    return len(names), worst, same
