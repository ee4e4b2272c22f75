"""A model cut at every boundary, in every codec and level: bytes, times, and its answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from splitpoint.codec import Array, CodecError, codec_named, codec_of_tensor
from splitpoint.codec.codec_set import CodecSource
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain

PICTURES = ("jpeg@10", "jpeg@20", "jpeg@30", "jpeg@50", "jpeg@75", "jpeg@85", "jpeg@92", "jpeg@95",
            "webp@10", "webp@30", "webp@50", "webp@80", "webp@90", "webp@95")  # fmt: skip
PLAIN = ("q8", "q4")
EARLY = 0.25  # of the compute


@dataclass
class Level:
    """One codec at one boundary, behind that share of the compute, over all pictures."""

    boundary: Boundary
    compute: float
    codec: str
    answers: list[Array] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)

    @property
    def kb(self) -> float:
        return float(np.mean(self.nbytes)) / 1e3

    @property
    def kind(self) -> str:
        """What it is compared as: a format of pictures, or a cut."""
        if self.boundary.id == 0:
            return self.codec.partition("@")[0]
        return "early cut" if self.compute <= EARLY else "late cut"

    def cells(self, *between: str) -> list[str]:
        """A row of a table whose columns are `columns(...)`."""
        return [
            str(self.boundary.id), f"{100 * self.compute:.0f} %", self.codec, f"{self.kb:.1f}",
            *between, f"{np.median(self.encode_ms):.1f}", f"{np.median(self.decode_ms):.1f}",
        ]  # fmt: skip


def columns(*between: str) -> list[str]:
    return ["boundary", "compute", "codec", "kB", *between, "enc ms", "dec ms"]


def fewest_kb(levels: Sequence[Level], good: Callable[[Level], bool]) -> dict[str, Any]:
    """Of each kind the smallest good one: its kB and what it is, and how an early cut does."""
    best: dict[str, Level] = {}
    for level in levels:
        if good(level) and (level.kind not in best or level.kb < best[level.kind].kb):
            best[level.kind] = level
    found: dict[str, Any] = {
        kind: [round(level.kb, 1), f"{level.codec} at boundary {level.boundary.id}"]
        for kind, level in best.items()
    }
    if "jpeg" in best and "early cut" in best:
        found["times fewer bytes than JPEG"] = round(best["jpeg"].kb / best["early cut"].kb, 2)
    return found


class SplitModel:
    """The chain, and what its head makes of its end."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest, self._form = bundle.manifest, AnswerForm.of(bundle.manifest)
        self._codecs = codecs_of(bundle.manifest, bundle.folder)
        self._chain = OnnxChain(bundle, threads=1)
        for index in range(len(self._chain)):
            self._chain.load(index)

    def answer(self, pixels: Array) -> Array:
        """The unsplit model's, to one picture."""
        first = self.manifest.boundaries[0]
        return self._rest(first, {first.tensors[0].name: pixels[np.newaxis]})

    def measured(self, pictures: Iterable[Array]) -> list[Level]:
        """Every codec and level at every boundary but the last, over the pictures."""
        flops = [0, *np.cumsum([segment.flops for segment in self.manifest.segments])]
        levels = [
            Level(boundary, float(flops[boundary.id] / flops[-1]), codec)
            for boundary in self.manifest.boundaries[:-1]
            for codec in _codecs_at(boundary)
        ]
        for number, pixels in enumerate(pictures, start=1):
            crossing = {boundary.id: values for boundary, values in self._crossing(pixels)}
            for level in levels:
                try:
                    self._add(level, self._codecs, crossing[level.boundary.id])
                except CodecError as error:
                    where = f"{level.codec} at boundary {level.boundary.id}"
                    raise SystemExit(f"{where}: {error}") from error
            print(f"{number} pictures", file=sys.stderr, flush=True)
        return levels

    def _crossing(self, pixels: Array) -> Iterator[tuple[Boundary, dict[str, Array]]]:
        first = self.manifest.boundaries[0].tensors[0].name
        state: dict[str, Any] = dict(self._chain.place({first: pixels[np.newaxis]}))
        for boundary in self.manifest.boundaries[:-1]:
            yield boundary, {s.name: self._chain.fetch(state[s.name]) for s in boundary.tensors}
            state |= self._chain.step(boundary.id, state)

    def _add(self, level: Level, codecs: CodecSource, values: Mapping[str, Array]) -> None:
        """Encodes, decodes and goes on with one picture."""
        at, specs = level.boundary.id, level.boundary.tensors
        codec = codecs.named(level.codec, at) if at else codec_named(level.codec)
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
        level.answers.append(self._rest(level.boundary, decoded))

    def _rest(self, boundary: Boundary, values: Mapping[str, Array]) -> Array:
        state: dict[str, Any] = dict(self._chain.place(values))
        for index in range(boundary.id, len(self._chain)):
            state |= self._chain.step(index, state)
        last = self.manifest.boundaries[-1].tensors
        answer = self._form.made({s.name: self._chain.fetch(state[s.name]) for s in last})
        found: Array = next(iter(answer.values()))[0]
        return found


def _codecs_at(boundary: Boundary) -> list[str]:
    if boundary.id == 0:
        return list(PICTURES)
    return [*PLAIN, *(level.codec for level in boundary.ladder if level.codec.startswith("fkt"))]
