"""A boundary of a bundle: what crosses there, and the codecs that can carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from splitpoint.codec import TensorSpec, codecs_for
from splitpoint.codec.codec_set import LEARNED

from .ladder import CodecLevel, RuntimeLevel
from .learned_files import LearnedFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A materialised cut: `after` is the layer before it, None for the model's input.

    `ladder` is what calibration measured of codecs here, `tables` its file for the transform
    codec; both are empty for a bundle that was not calibrated. `int8` is what becomes of the
    answers when all segments before it run in INT8, None where there are none. `left_out` says why
    a codec does not carry it although it knows the dtypes: it refused a value when compiling.
    `learned` are the files of its learned codec, if it has one.
    """

    id: int
    after: str | None
    tensors: tuple[TensorSpec, ...]
    tables: str = ""
    ladder: tuple[CodecLevel, ...] = ()
    int8: RuntimeLevel | None = None
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)
    learned: LearnedFiles | None = None

    @property
    def nbytes(self) -> int:
        """Raw bytes of one sample."""
        return sum(spec.nbytes_at(1) for spec in self.tensors)

    def can_be_full_of(self, numbers: Mapping[str, int]) -> bool:
        """Whether each of its tensors that is named holds integers, and so large ones."""
        limits = {
            spec.name: np.iinfo(spec.numpy_dtype)
            for spec in self.tensors
            if np.issubdtype(spec.numpy_dtype, np.integer)
        }
        return all(
            type(number) is int
            and name in limits
            and limits[name].min <= number <= limits[name].max
            for name, number in numbers.items()
        )

    @property
    def one_sample(self) -> bool:
        """Whether the model takes one sample at a time, and no batch."""
        return any(spec.one_sample for spec in self.tensors)

    @property
    def codec_files(self) -> list[str]:
        """What its calibrated codecs need, as paths inside the bundle."""
        tables = [self.tables] if self.tables else []
        return [*tables, *(self.learned.paths if self.learned else ())]

    @property
    def device_codec_files(self) -> list[str]:
        """Of those, what a device needs: it encodes only."""
        tables = [self.tables] if self.tables else []
        return [*tables, *(self.learned.for_the_device if self.learned else ())]

    @property
    def codecs(self) -> list[str]:
        """Names of the codecs that can carry it, the calibrated levels last."""
        names = [name for name in codecs_for(self.tensors) if name not in self.left_out]
        return [*names, *(level.codec for level in self.ladder if level.codec not in names)]

    def level(self, codec: str) -> CodecLevel | None:
        """What calibration measured of a codec here."""
        return next((level for level in self.ladder if level.codec == codec), None)

    def levels_of(self, family: str) -> list[CodecLevel]:
        """What calibration measured of `family` here: of `fkt` the levels `fkt@1`, `fkt@2` …"""
        return [level for level in self.ladder if level.codec.partition("@")[0] == family]

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "id": self.id,
            "after": self.after,
            "tensors": [spec.to_json() for spec in self.tensors],
            "tables": self.tables,
            "ladder": [level.to_json() for level in self.ladder],
            **({} if self.int8 is None else {"int8": self.int8.to_json()}),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
            **({} if self.learned is None else {"learned": self.learned.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Boundary:
        """Reads the manifest's form (an error of some kind for a damaged one)."""
        left_out = {str(codec): str(why) for codec, why in data.get("left_out", {}).items()}
        if "raw" in left_out:
            raise ValueError("the codec raw carries everything")
        found = cls(
            id=data["id"],
            after=data["after"],
            tensors=tuple(TensorSpec.from_json(spec) for spec in data["tensors"]),
            tables=str(data["tables"]),
            ladder=tuple(CodecLevel.from_json(level) for level in data["ladder"]),
            int8=RuntimeLevel.from_json(data["int8"]) if "int8" in data else None,
            left_out=left_out,
            learned=LearnedFiles.from_json(data["learned"]) if "learned" in data else None,
        )
        found._check_learned()
        return found

    def _check_learned(self) -> None:
        """`ValueError` for a learned codec of anything but maps, and for levels that it has not."""
        levels = [level.codec for level in self.levels_of(LEARNED)]
        known = [f"{LEARNED}@{n + 1}" for n in range(self.learned.levels if self.learned else 0)]
        if not set(levels) <= set(known) or len(set(levels)) != len(levels):
            raise ValueError("a learned codec has other levels than its ladder")
        if self.learned is not None:
            (spec,) = self.tensors
            if spec.dtype != "float32" or len(spec.shape) != 4 or spec.one_sample:
                raise ValueError("a learned codec is of maps in float32")
