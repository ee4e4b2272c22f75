"""The files of a boundary's learned codec: its tables and its two networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEARN_AGAIN = "train the codec again with `splitpoint learn`"
MAX_LEVELS = 16  # as many as the transform codec may have, from whose levels they come


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """A network as an ONNX model and as a program for torch, which share their weights.

    It takes a tensor and `[batch, 1]` octaves and gives a tensor of that shape. `flops` are those
    of one sample.
    """

    onnx: str
    program: str
    weights: str
    flops: int

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (self.onnx, self.program, self.weights)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "onnx": self.onnx,
            "program": self.program,
            "weights": self.weights,
            "flops": self.flops,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkFiles:
        """Reads the manifest's form (an error of some kind for a damaged one)."""
        flops = data["flops"]
        if type(flops) is not int or flops < 0:
            raise ValueError("a network has impossible operations")
        return cls(
            onnx=str(data["onnx"]),
            program=str(data["program"]),
            weights=str(data["weights"]),
            flops=flops,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFiles:
    """`tables` hold one table of a single level for each of the codec's `levels`."""

    tables: str
    levels: int
    encoder: NetworkFiles
    decoder: NetworkFiles

    @property
    def for_the_device(self) -> tuple[str, ...]:
        """What encoding needs: neither the decoder nor anything for torch."""
        return (self.tables, self.encoder.onnx, self.encoder.weights)

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them, as paths inside the bundle."""
        return (self.tables, *self.encoder.paths, *self.decoder.paths)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "tables": self.tables,
            "levels": self.levels,
            "encoder": self.encoder.to_json(),
            "decoder": self.decoder.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LearnedFiles:
        """Reads the manifest's form (an error of some kind for a damaged one)."""
        levels = data["levels"]
        if type(levels) is not int or not 1 <= levels <= MAX_LEVELS:
            raise ValueError("a learned codec has an impossible number of levels")
        return cls(
            tables=str(data["tables"]),
            levels=levels,
            encoder=NetworkFiles.from_json(data["encoder"]),
            decoder=NetworkFiles.from_json(data["decoder"]),
        )
