"""What a learned codec is worth: its levels and its rivals', measured on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from splitpoint.codec import Array
from splitpoint.codec.codec_set import FKT, LEARNED, CodecSource

from ..bundle.bundle import Bundle
from ..bundle.ladder import CodecLevel
from ..calibrate.judge import Judge
from ..run.onnx_chain import OnnxChain
from .pictures import pixels

IMAGES = ("jpeg@75", "jpeg@85", "jpeg", "webp@80", "webp")
_POINTS = 9  # of the losses that both have, where bytes are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rungs over the same pictures: of the codec, of `fkt` at its boundary, of the input's codecs.

    Each begins with its coarsest.
    """

    learned: tuple[CodecLevel, ...]
    fkt: tuple[CodecLevel, ...]
    images: tuple[CodecLevel, ...]

    @property
    def ratio(self) -> float | None:
        """Bytes over those of `fkt` at equal loss, a geometric mean over losses that both have.

        None where they have none in common.
        """
        return bytes_ratio(self.learned, self.fkt)


class Judging:
    """Judges codecs of a bundle on some pictures; the model itself is exact."""

    def __init__(self, bundle: Bundle, files: Sequence[Path]) -> None:
        manifest = bundle.manifest
        picture, name = manifest.picture, manifest.picture_tensor
        assert picture is not None
        assert name is not None
        self._manifest = manifest
        self._inputs = [{name: pixels(picture, path)[np.newaxis]} for path in files]
        self._chain = OnnxChain(bundle)
        for index in range(len(self._chain)):
            self._chain.load(index)
        self.judge = Judge(manifest, self._chain, self._inputs)

    def compare(
        self, boundary: int, codecs: CodecSource, levels: int, tell: Callable[[str, int, int], None]
    ) -> Comparison:
        """Every level of both codecs there, and the codecs of the input."""
        found, first = self._manifest.boundaries[boundary], self._manifest.boundaries[0]
        states = [self._at(boundary, given) for given in self._inputs]
        values = {s.name: [state[s.name] for state in states] for s in found.tensors}
        inputs = {s.name: [given[s.name] for given in self._inputs] for s in first.tensors}
        jobs = [(found, f"{LEARNED}@{n + 1}", values) for n in range(levels)]
        jobs += [(found, level.codec, values) for level in found.levels_of(FKT)]
        jobs += [(first, name, inputs) for name in IMAGES]
        rungs: dict[str, list[CodecLevel]] = {LEARNED: [], FKT: [], "": []}
        for number, (at, name, given) in enumerate(jobs):
            tell(f"judging {name}", number, len(jobs))
            family = name.partition("@")[0]
            level = self.judge.level(at, name, [codecs], given)
            if level is not None:
                rungs[family if family in rungs else ""].append(level)
        return Comparison(
            learned=tuple(rungs[LEARNED]), fkt=tuple(rungs[FKT]), images=tuple(rungs[""])
        )

    def _at(self, boundary: int, given: Mapping[str, Array]) -> dict[str, Array]:
        """What crosses there, and nothing of what was before it."""
        state = dict(given)
        for index in range(boundary):
            crossing = {spec.name for spec in self._manifest.boundaries[index + 1].tensors}
            after = state | dict(self._chain.step(index, state))
            state = {name: after[name] for name in crossing}
        return state


def bytes_ratio(rungs: Sequence[CodecLevel], rivals: Sequence[CodecLevel]) -> float | None:
    """See `Comparison.ratio`; between rungs both logarithms go straight."""
    curves = [
        sorted((level.loss, level.nbytes) for level in some if level.loss > 0)
        for some in (rungs, rivals)
    ]
    if any(len(curve) < 2 for curve in curves):
        return None
    low = max(curve[0][0] for curve in curves)
    high = min(curve[-1][0] for curve in curves)
    if low > high:
        return None
    losses = np.geomspace(low, high, _POINTS)
    own, other = (
        np.interp(np.log(losses), np.log([p[0] for p in curve]), np.log([p[1] for p in curve]))
        for curve in curves
    )
    return float(np.exp((own - other).mean()))
